"""What a model's `config.json` tells of it: its architecture, and how large its caches are.

Keys are those of Hugging Face's transformers; a model for text and more has them in `text_config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.kit.on_host.outside import FormError, parsed

# What is believed of a file's numbers; the largest models of today have a hundredth of each.
_LAYERS, _HEADS, _SIZE, _TOKENS = (
    range(1, 4_097),
    range(1, 65_537),
    range(1, 1_048_577),
    range(1, 2**31),
)
_FORM = {
    "architectures?": [str],
    "num_hidden_layers?": _LAYERS,
    "num_attention_heads?": _HEADS,
    "num_key_value_heads?": _HEADS,
    "head_dim?": _SIZE,
    "hidden_size?": _SIZE,
    "max_position_embeddings?": _TOKENS,
    "sliding_window?": _TOKENS,
    "layer_types?": [str],
    "kv_lora_rank?": _SIZE,
    "qk_rope_head_dim?": _SIZE,
}
_WHOLE, _WINDOWED = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class ModelConfig:
    """What of a model decides how it is served; None where its file does not tell.

    `heads` and `kv_heads` are of a layer, `whole` and `windowed` are layers that keep the whole
    context and those that keep `window` tokens, `row` are elements of the cache a token, layer and
    KV head; with `latent` all heads of a layer share them. `context` is in tokens.
    """

    architecture: str = ""
    heads: int | None = None
    kv_heads: int | None = None
    row: int | None = None
    whole: int = 0
    windowed: int = 0
    window: int = 0
    context: int | None = None
    latent: bool = False

    def elements(self, tensor_parallel: int) -> tuple[int, int] | None:
        """Elements of the cache a token and GPU: of layers with the whole context, with a window.

        KV heads are shared out, and copied where there are fewer than GPUs; what is latent is
        copied to each.
        """
        if self.row is None or self.kv_heads is None:
            return None
        heads = 1 if self.latent else max(1, -(-self.kv_heads // tensor_parallel))
        return heads * self.row * self.whole, heads * self.row * self.windowed


def read_config(text: str) -> ModelConfig:
    """What `config.json` with this `text` tells.

    Raises:
        FormError: it is no such file.
    """
    outer = parsed(text, {"text_config?": {}, "architectures?": [str]}, "config.json")
    found = parsed(text, {**_FORM, "text_config?": _FORM}, "config.json")
    inner: dict[str, Any] = {**found, **(found.get("text_config") or {})}
    layers = inner.get("num_hidden_layers")
    if layers is None:
        raise FormError("config.json does not tell num_hidden_layers")
    heads = inner.get("num_attention_heads")
    kinds = inner.get("layer_types") or _kinds(inner, layers)
    latent = inner.get("kv_lora_rank")
    size = inner.get("head_dim") or (
        inner["hidden_size"] // heads if heads and inner.get("hidden_size") else None
    )
    row = latent + (inner.get("qk_rope_head_dim") or 0) if latent else size and 2 * size
    return ModelConfig(
        architecture=(outer.get("architectures") or [""])[0],
        heads=heads,
        kv_heads=inner.get("num_key_value_heads") or heads,
        row=row,
        whole=kinds.count(_WHOLE),
        windowed=kinds.count(_WINDOWED),
        window=inner.get("sliding_window") or 0,
        context=inner.get("max_position_embeddings"),
        latent=latent is not None,
    )


def _kinds(inner: dict[str, Any], layers: int) -> list[str]:
    """Of a file without a list every layer is counted as if it kept the whole context."""
    return [_WHOLE] * layers

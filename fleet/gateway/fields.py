"""What of a request's JSON may pass with a key, by path: nested as the JSON is, with the reasons.

A field that is in none of these shapes reaches no server: it is refused by name, or dropped and
named in the answer. `Withheld` fields are refused or dropped likewise, and pass with a key whose
overrides are allowed, and with an admin's. What servers take for content (messages' parts, schemas,
arguments of tools) is `ANY`: they read no setting out of it.

The other words are `ANY` too, and the gateway reads them for itself: which model, whether the
answer is a stream, what tells a conversation from others, and how much of it is text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

ANY = "any"
MODEL = "model"
STREAM = "stream"
INCLUDE_USAGE = "include_usage"
ROLE = "role"  # of a message: with the first `user` it is told which conversation this is
SAID = "said"  # a text, or a list of parts that have texts
PROMPT = "prompt"
BLOB = "blob"  # images: bytes that are no text


@dataclass(frozen=True)
class Withheld:
    """A field that an inference key may not set, and why."""

    reason: str


@dataclass(frozen=True)
class Each:
    """A list, and what each of its elements is.

    `turns`: it is a conversation. `or_text`: a text may stand there instead.
    """

    of: Shape
    turns: bool = False
    or_text: bool = False


@dataclass(frozen=True)
class Fields:
    """An object with these fields, where more is to be said of it than that.

    `place`: the name by which its place is told. `content`: nothing in it is judged.
    """

    fields: Mapping[str, Shape]
    place: str = ""
    content: bool = False


Shape: TypeAlias = "str | Withheld | Each | Fields | Mapping[str, Shape]"


def _any(names: str) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), ANY)


def _withheld(names: str, reason: str) -> dict[str, Shape]:
    return dict.fromkeys(names.split(), Withheld(reason))


_RELOADS = "is not for this key: it would load the model anew for everybody; leave it out"
_KEEPS = (
    "is not for this key: it decides how long the model stays loaded for everybody; leave it out"
)
_EXECUTED = "is not for this key: the server would execute it, without a limit; leave it out"
_SHOWS = "is not for this key: it shows how the model is asked; leave it out"
_DRAWS = "is not for this key: it has no limit, and no model here draws; leave it out"

_TOOLS = Each(
    {
        **_any("type items strict cache_control custom"),
        "function": _any("name description parameters strict"),
    }
)
_TOOL_CALLS = Each(
    {**_any("id index type custom"), "function": _any("index name description arguments")}
)
# llama.cpp's options of a single request; those that Ollama knows no more are ignored there.
_OPTIONS: Shape = {
    **_any(
        "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature "
        "repeat_penalty presence_penalty frequency_penalty stop "
        "mirostat mirostat_tau mirostat_eta penalize_newline tfs_z"
    ),
    **_withheld(
        "num_ctx num_batch num_gpu main_gpu use_mmap num_thread draft_num_predict "
        "numa low_vram f16_kv logits_all vocab_only use_mlock embedding_only",
        _RELOADS,
    ),
}
_NATIVE: dict[str, Shape] = {
    "model": MODEL,
    "options": _OPTIONS,
    "keep_alive": Withheld(_KEEPS),
}
_ANSWERED: dict[str, Shape] = {
    **_NATIVE,
    "stream": STREAM,
    **_any("format think truncate logprobs top_logprobs"),
    # Known to no server, but the AI SDK's provider for Ollama sends it.
    "max_output_tokens": ANY,
    "shift": Withheld(_RELOADS),
    "_debug_render_only": Withheld(_SHOWS),
}
_MESSAGE: Shape = {
    "role": ROLE,
    "content": SAID,
    "images": BLOB,
    **_any("thinking tool_name tool_call_id name"),
    "tool_calls": _TOOL_CALLS,
}
_STREAM_OPTIONS = Fields(
    {"include_usage": INCLUDE_USAGE, **_any("include_obfuscation")}, place="stream_options"
)
# Of OpenAI's API; what Ollama does not know of it, it ignores.
_SAMPLED: dict[str, Shape] = {
    "model": MODEL,
    "stream": STREAM,
    **_any(
        "seed stop temperature top_p frequency_penalty presence_penalty max_tokens n "
        "logprobs logit_bias user metadata "
        # Not OpenAI's own, but what other servers and their clients have made common.
        "top_k min_p repetition_penalty"
    ),
    "stream_options": _STREAM_OPTIONS,
    "_debug_render_only": Withheld(_SHOWS),
}
_CHAT_MESSAGE: Shape = {
    "role": ROLE,
    "content": SAID,
    **_any(
        "name tool_call_id refusal audio annotations function_call "
        "reasoning reasoning_content reasoning_details thinking"
    ),
    "tool_calls": _TOOL_CALLS,
}
_ANTHROPIC: dict[str, Shape] = {
    "model": MODEL,
    "messages": Each({"role": ROLE, "content": SAID}, turns=True),
    "system": SAID,
    **_any(
        "tools tool_choice thinking output_config output_format cache_control "
        "context_management mcp_servers speed user_profile_id workspace_id billing_policy "
        "compaction"
    ),
}

ALLOWED: dict[str, Shape] = {
    "api/chat": {**_ANSWERED, "messages": Each(_MESSAGE, turns=True), "tools": _TOOLS},
    "api/generate": {
        **_ANSWERED,
        "prompt": PROMPT,
        "system": SAID,
        "images": BLOB,
        **_any("suffix context raw"),
        "template": Withheld(_EXECUTED),
        **_withheld("width height steps", _DRAWS),
    },
    # Asked by clients before they chat; `name` is what older ones call the model.
    "api/show": {
        "model": MODEL,
        "name": MODEL,
        "verbose": ANY,
        **_withheld("system template options", _SHOWS),
    },
    "api/embed": {**_NATIVE, **_any("input truncate dimensions")},
    "api/embeddings": {**_NATIVE, **_any("prompt")},
    "v1/chat/completions": {
        **_SAMPLED,
        "messages": Each(_CHAT_MESSAGE, turns=True),
        "tools": _TOOLS,
        "reasoning": _any("effort summary generate_summary enabled exclude max_tokens"),
        **_any(
            "max_completion_tokens response_format tool_choice parallel_tool_calls top_logprobs "
            "reasoning_effort store service_tier functions function_call modalities audio "
            "prediction verbosity web_search_options safety_identifier prompt_cache_key "
            "prompt_cache_retention prompt_cache_options moderation"
        ),
    },
    "v1/completions": {**_SAMPLED, "prompt": PROMPT, **_any("suffix best_of echo")},
    "v1/embeddings": {"model": MODEL, **_any("input dimensions encoding_format user")},
    "v1/responses": {
        "model": MODEL,
        "stream": STREAM,
        "instructions": SAID,
        "input": Each(
            Fields({"role": ROLE, "content": SAID}, content=True), turns=True, or_text=True
        ),
        **_any(
            "max_output_tokens temperature top_p stream_options tools "
            "tool_choice text truncation include background conversation metadata user store "
            "parallel_tool_calls previous_response_id prompt prompt_cache_key "
            "prompt_cache_retention safety_identifier service_tier max_tool_calls top_logprobs "
            "context_management client_metadata frequency_penalty presence_penalty "
            "access_programs image moderation prompt_cache_options"
        ),
        "reasoning": _any("effort summary generate_summary mode context"),
    },
    "v1/messages": {
        **_ANTHROPIC,
        "stream": STREAM,
        **_any(
            "max_tokens temperature top_p top_k stop_sequences metadata container "
            "service_tier inference_geo diagnostics fallbacks fallback_credit_token thread"
        ),
    },
    "v1/messages/count_tokens": _ANTHROPIC,
}


def as_lua() -> str:
    """The module `gateway_fields`, which the gateway reads."""
    lines = [f"  [{_text(path)}] = {_lua(shape)}," for path, shape in ALLOWED.items()]
    # Managing is for admins: there only the model's name is read, for the log.
    managed = f'{{ open = true, fields = {{ model = "{MODEL}" }} }}'
    return "\n".join(
        [
            "-- Managed by llm-fleet: what of a request may pass, as fleet/gateway/fields.py says.",
            "return {",
            *lines,
            f"  managed = {managed},",
            "}",
            "",
        ]
    )


def _lua(shape: Shape) -> str:
    if isinstance(shape, Withheld):
        return f"{{ withheld = {_text(shape.reason)} }}"
    if isinstance(shape, Each):
        marks = _marks(turns=shape.turns, text=shape.or_text)
        return f"{{ each = {_lua(shape.of)}{marks} }}"
    if isinstance(shape, str):
        return _text(shape)
    marks = ""
    if isinstance(shape, Fields):
        marks = _marks(content=shape.content)
        marks += f", place = {_text(shape.place)}" if shape.place else ""
        shape = shape.fields
    inner = ", ".join(f"[{_text(name)}] = {_lua(value)}" for name, value in shape.items())
    return f"{{ fields = {{ {inner} }}{marks} }}"


def _marks(**marks: bool) -> str:
    return "".join(f", {name} = true" for name, there in marks.items() if there)


def _text(text: str) -> str:
    """A text of ours in Lua: printable ASCII without quotes or backslashes."""
    return f'"{text}"'

"""`auto`: which model, and why."""

from __future__ import annotations

import pytest

from fleet.models.choice import GIB, Choice, Memory, choose, resolve, resolve_model
from fleet.ollama.models import ModelDeclaration, full_name, is_auto


@pytest.mark.parametrize(
    ("gpus", "ram", "model", "why"),
    [
        ([80], 64, "gpt-oss:120b", "1 GPU with 80 GiB: at least the 68 GiB"),
        ([48, 48], 64, "gpt-oss:120b", "2 GPUs with 96 GiB: at least"),
        ([67], 512, "gpt-oss:20b", "1 GPU with 67 GiB: less than the 68 GiB"),
        ([16], 512, "gpt-oss:20b", "less than the 18 GiB that gpt-oss:20b needs with its whole"),
        ([], 128, "gpt-oss:120b", "no GPU, 128 GiB of memory: at least the 80 GiB"),
        ([], 64, "gpt-oss:20b", "no GPU, 64 GiB of memory: less than the 80 GiB"),
        ([], 8, "gpt-oss:20b", "and less than the 24 GiB that gpt-oss:20b needs"),
    ],
)
def test_choice(gpus: list[int], ram: int, model: str, why: str) -> None:
    choice = choose(Memory(tuple(size * GIB for size in gpus), ram * GIB))
    assert choice is not None
    assert choice.model == model
    assert why in choice.why


def test_silent_gpu_is_not_guessed_about() -> None:
    assert choose(Memory((), 512 * GIB, has_silent_gpu=True)) is None


CHOICE = Choice("gpt-oss:120b", "because")


@pytest.mark.parametrize("auto", ["auto", "auto:latest"])
class TestAuto:
    """Both names are one model: what one place takes for the choice, no other takes for a name."""

    def test_name(self, auto: str) -> None:
        assert is_auto(auto)
        assert resolve(auto, CHOICE) == "gpt-oss:120b"
        assert resolve(auto, None) is None

    def test_declaration_and_base(self, auto: str) -> None:
        plain = ModelDeclaration.named(auto)
        made = ModelDeclaration.model_validate({"name": "analyst", "base": auto, "system": "x"})
        for model, name, root in (
            (plain, "gpt-oss:120b", "gpt-oss:120b"),
            (made, "analyst:latest", "gpt-oss:120b"),
        ):
            resolved = resolve_model(model, CHOICE)
            assert resolved is not None
            assert (resolved.full_name, resolved.root) == (name, root)
            assert resolve_model(model, None) is None

    def test_is_refused_where_it_cannot_be(self, auto: str) -> None:
        with pytest.raises(ValueError, match="auto has no digest"):
            ModelDeclaration.model_validate({"name": auto, "digest": "ab" * 32})
        with pytest.raises(ValueError, match="auto is chosen, not made"):
            ModelDeclaration.model_validate({"name": auto, "base": "x", "system": "y"})


@pytest.mark.parametrize("name", ["automatic", "me/auto", "auto:20b", "gpt-oss"])
def test_other_names_are_names(name: str) -> None:
    assert not is_auto(name)
    assert resolve(name, None) == full_name(name)
    model = ModelDeclaration.named(name)
    assert resolve_model(model, None) == model

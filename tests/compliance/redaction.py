"""No secret of the fleet in what is said of a check, whatever a failing one has compared."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fleet.kit.secrets import SecretStore

BLANK = "[secret]"
_SHORTEST = 8  # characters; shorter words are in every text


def secret_words(store: SecretStore) -> tuple[str, ...]:
    """Every word of every secret that is kept, the longest first: a key in PEM has many."""
    values = [
        value.get_secret_value() for name in store.kept.names() if (value := store.read(name))
    ]
    words = {word for value in values for word in value.split() if len(word) >= _SHORTEST}
    return tuple(sorted(words, key=len, reverse=True))


def blanked(text: str, words: Iterable[str]) -> str:
    """The `text` with each of these words left out."""
    for word in words:
        text = text.replace(word, BLANK)
    return text


def blank(report: pytest.TestReport, words: tuple[str, ...]) -> None:
    """Leave the words out of all that a report says."""
    text = str(report.longrepr or "")
    if (clean := blanked(text, words)) != text:
        report.longrepr = clean
    report.sections = [(name, blanked(said, words)) for name, said in report.sections]
    report.user_properties = [
        (name, blanked(str(value), words)) for name, value in report.user_properties
    ]

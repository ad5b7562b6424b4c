"""What all classes of settings have in common."""

from __future__ import annotations

from fleet.capabilities import CAPABILITIES


def test_renamed_keys_lead_to_keys_that_there_are() -> None:
    models = [item.settings for item in CAPABILITIES]
    known = {model.key(name) for model in models for name in model.model_fields}
    renamed = {key: text for model in models for key, text in model.renamed.items()}
    assert "firewall_enabled" in renamed
    assert known & set(renamed) == set()
    assert [key for key, text in renamed.items() if text.split()[0] not in known] == []

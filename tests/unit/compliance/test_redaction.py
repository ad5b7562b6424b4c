"""A secret that a failing check has compared is in nothing that is said of it."""

from __future__ import annotations

from pathlib import Path

from fleet.kit.secrets import SecretStore
from tests.compliance.redaction import BLANK, blank, secret_words
from tests.compliance.results import checks_of
from tests.unit.compliance.reports import report


def test_every_word_of_every_secret(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "store")
    key = store.api_key("gateway_key_a").get_secret_value()
    store.replace("gateway_ca_key", "-----BEGIN KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END KEY-----")
    found = report(
        "present", "gpu1", "failed", ("measured", f"saw {key}"),
        ("warning", "MIGHAgEAMBMGByqGSM49"),
        longrepr=f"E  assert 'Bearer {key}' == ''",
    )  # fmt: skip
    found.sections = [("Captured stdout call", key)]
    blank(found, secret_words(store))
    text = f"{found.longrepr} {found.sections} {found.user_properties} {checks_of([found])}"
    assert key not in text
    assert "MIGHAgEA" not in text
    assert text.count(BLANK) >= 4
    assert f"assert 'Bearer {BLANK}'" in str(found.longrepr)


def test_without_a_secret_nothing_is_changed(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "none")
    assert secret_words(store) == ()
    found = report("present", "gpu1", "skipped", longrepr=("f", 1, "Skipped: no"))
    blank(found, ("sk-" + "1" * 64,))
    assert found.longrepr == ("f", 1, "Skipped: no")
    assert not store.root.exists()

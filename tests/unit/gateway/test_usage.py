"""What gateways have counted, read and added up."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fleet.gateway.facts import UsageFiles
from fleet.gateway.paths import GATEWAY_USAGE
from fleet.gateway.usage import SCHEMA, Used, counts_of, days_since, summed
from fleet.kit.errors import FleetError

TODAY = date(2026, 12, 1)


def file(*rows: dict[str, Any], day: str = "2026-12-01", schema: str = SCHEMA) -> str:
    return json.dumps({"schema": schema, "day": day, "hours": {}, "rows": rows})


def row(number: int = 1, **names: str) -> dict[str, Any]:
    return {
        "key": "a", "model": "m", "host": "gpu1", **names, "requests": number,
        "prompt": 10 * number, "cached": 2 * number, "completion": 3 * number, "estimated": 0,
    }  # fmt: skip


def test_counts_add_up_by_any_part() -> None:
    files = [file(row(), row(2, host="gpu2")), file(row(4), row(8, key="b"), day="2026-11-30")]
    counts = list(counts_of(files))
    assert summed(counts, ["key"]) == {("a",): Used(7, 70, 14, 21), ("b",): Used(8, 80, 16, 24)}
    assert list(summed(counts, ["day", "host"])) == [
        ("2026-11-30", "gpu1"), ("2026-12-01", "gpu1"), ("2026-12-01", "gpu2"),
    ]  # fmt: skip
    assert summed(counts, []) == {(): Used(15, 150, 30, 45)}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", file({"key": "a"}), file({**row(), "prompt": "x"}), file(7)],  # type: ignore[arg-type]
)
def test_a_damaged_file_is_no_zero(text: str) -> None:
    with pytest.raises(FleetError, match="damaged"):
        list(counts_of([file(row()), text]))


def test_a_file_of_another_version_is_not_guessed_at() -> None:
    with pytest.raises(FleetError, match="llm-fleet-usage/2, and llm-fleet-usage/1 is known here"):
        list(counts_of([file(schema="llm-fleet-usage/2")]))


@pytest.mark.parametrize(
    ("text", "first", "length"),
    [
        ("1d", "2026-12-01", 1), ("30d", "2026-11-02", 30), ("400d", "2025-10-28", 400),
        ("2026-12-01", "2026-12-01", 1), ("2026-11-30", "2026-11-30", 2),
    ],
)  # fmt: skip
def test_days(text: str, first: str, length: int) -> None:
    days = days_since(text, TODAY)
    assert (str(days[0]), str(days[-1]), len(days)) == (first, "2026-12-01", length)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0d", "no day up to today"), ("2026-12-02", "no day up to today"), ("401d", "keep 400"),
        ("99999999999999d", "keep 400"), ("2020-01-01", "keep 400"), ("30", "known here"),
        ("", "known here"), ("d", "known here"), ("30h", "known here"), ("-3d", "known here"),
        ("\N{SUPERSCRIPT TWO}d", "known here"), ("last week", "known here"),
    ],
)  # fmt: skip
def test_other_times_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        days_since(text, TODAY)


def asked(folder: Path, *days: str) -> tuple[int, list[str] | None]:
    """The exit status of the question and what is made of its answer, where usage is `folder`."""
    fact = UsageFiles()
    command = fact.command(list(days)).get_raw_value().replace(GATEWAY_USAGE, str(folder))
    told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return told.returncode, fact.process(told.stdout.splitlines())


def test_the_days_are_asked_for_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "2026-11-30.json").write_text('{"rows":[\n{"key":"#"}\n]}\n')
    (tmp_path / "2026-12-01.json").write_text("{}\n")
    (tmp_path / "2026-12-01.json.new").write_text("{")
    answer = asked(tmp_path, "2026-11-29", "2026-11-30", "2026-12-01")
    assert answer == (0, ['{"rows":[\n{"key":"#"}\n]}', "{}"])
    assert asked(tmp_path, "2026-11-29") == (0, [])


def test_a_gateway_that_never_counted_is_told_from_one_without_requests(tmp_path: Path) -> None:
    assert asked(tmp_path / "missing", "2026-12-01") == (0, None)


def test_a_file_that_cannot_be_read_is_no_zero(tmp_path: Path) -> None:
    (tmp_path / "2026-12-01.json").mkdir()
    assert asked(tmp_path, "2026-12-01")[0] != 0

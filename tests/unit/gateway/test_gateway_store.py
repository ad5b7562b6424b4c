"""Counts that outlive nginx, and what becomes of them when something breaks."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.metering import Metering, metering
from tests.unit.gateway.routed import until

PERIOD = 6  # seconds within which all is on the disk
NOON = datetime(2026, 12, 15, 12, 30, tzinfo=UTC)  # no test runs over an hour or a day


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        set_clock(Path(directory), NOON)
        yield Path(directory)


def set_clock(folder: Path, now: datetime) -> None:
    """Have nginx take it for `now`, from its next start or reload on."""
    (folder / "clock").write_text(str(int(now.timestamp() - time.time())))


def add(nginx: Metering, key: str = "team", model: str = "tiny:latest", host: str = "gpu1") -> None:
    nginx.do(
        f"return require('gateway_store').add('{key}', '{model}', '{host}', "
        "{ requests = 1, prompt = 5, cached = 2, completion = 7, estimated = 1 })"
    )


def spent(nginx: Metering, window: str, key: str = "team") -> int:
    found: list[int] = nginx.do(f"return require('gateway_store').spent('{key}', '{window}')")
    return found[0]


def row(number: int = 1, **names: str) -> dict[str, Any]:
    return {
        "key": "team", "model": "tiny:latest", "host": "gpu1", **names,
        "requests": number, "prompt": 5 * number, "cached": 2 * number, "completion": 7 * number,
        "estimated": number,
    }  # fmt: skip


def days(nginx: Metering) -> dict[str, list[dict[str, Any]]]:
    """The rows that are on the disk, by day."""
    files = sorted((nginx.directory / "state" / "usage").glob("*.json"))
    return {file.stem: json.loads(file.read_text())["rows"] for file in files}


def total(nginx: Metering) -> int:
    """Requests that are on the disk."""
    return sum(item["requests"] for rows in days(nginx).values() for item in rows)


def test_all_is_on_the_disk_within_seconds(folder: Path) -> None:
    with metering(folder) as nginx:
        add(nginx)
        add(nginx)
        add(nginx, "other", host="gpu2")
        end = time.monotonic() + PERIOD
        while total(nginx) < 3:
            assert time.monotonic() < end
            time.sleep(0.1)
        rows = [item for kept in days(nginx).values() for item in kept]
        assert sorted(rows, key=lambda item: item["key"]) == [
            row(1, key="other", host="gpu2"), row(2),
        ]  # fmt: skip
        assert nginx.errors() == ""
        mode = (folder / "state" / "usage").stat().st_mode & 0o777
        assert mode == 0o750


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_an_end_loses_nothing(folder: Path, how: signal.Signals) -> None:
    with metering(folder, workers=3) as nginx:
        for _ in range(3):
            for _ in range(10):
                add(nginx)
            nginx.stop(how)
            nginx.start()
        assert total(nginx) == 30
        assert spent(nginx, "d") == spent(nginx, "mo") == spent(nginx, "h") == 360
        add(nginx)
        time.sleep(1.5)  # until each worker knows what the others have counted
        assert spent(nginx, "mo") == 372
        assert nginx.errors() == ""


def test_a_kill_loses_seconds(folder: Path) -> None:
    with metering(folder, workers=2) as nginx:
        for number in range(1, 4):
            add(nginx)
            end = time.monotonic() + PERIOD
            while total(nginx) < number:
                assert time.monotonic() < end
                time.sleep(0.1)
            nginx.stop(signal.SIGKILL)
            nginx.start()
        assert spent(nginx, "d") == 36


def test_a_reload_loses_nothing_while_many_count(folder: Path) -> None:
    with metering(folder, workers=2) as nginx:
        done = threading.Event()
        counted = [0, 0]

        def work(place: int) -> None:
            while not done.is_set():
                add(nginx)
                counted[place] += 1

        threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(0.8)
            nginx.reload()
        done.set()
        for thread in threads:
            thread.join()
        time.sleep(1.5)
        assert spent(nginx, "mo") == 12 * sum(counted)
        nginx.stop()
        assert total(nginx) == sum(counted) > 100


def test_a_clock_that_jumps_takes_nothing_away(folder: Path) -> None:
    with metering(folder, starts=False) as nginx:
        jumps = [0, 1, 40, 1, -3, 0, 40, 0]
        for jump in jumps:
            set_clock(folder, NOON + timedelta(days=jump))
            nginx.start()
            add(nginx)
            nginx.stop()
        wanted = {f"{NOON + timedelta(days=jump):%Y-%m-%d}": jumps.count(jump) for jump in jumps}
        assert {day: rows[0]["requests"] for day, rows in days(nginx).items()} == wanted


def test_a_clock_that_jumps_under_a_running_nginx_takes_nothing_away(folder: Path) -> None:
    with metering(folder) as nginx:
        for jump in (0, 3, 0, -4, 3):
            nginx.do(
                "store.clock = store.clock or ngx.time "
                f"ngx.time = function() return store.clock() + {jump} * 86400 end return 1"
            )
            add(nginx)
            # Long enough for a day to be put away.
            time.sleep(4)
        nginx.stop()
        assert {day: rows[0]["requests"] for day, rows in days(nginx).items()} == {
            f"{NOON + timedelta(days=jump):%Y-%m-%d}": number
            for jump, number in ((0, 2), (3, 2), (-4, 1))
        }
        assert nginx.errors() == ""


@pytest.mark.parametrize(("jump", "is_kept"), [(365, True), (2, False)])
def test_old_files_go_as_days_pass_and_not_for_a_clock_that_jumps(
    folder: Path, jump: int, is_kept: bool
) -> None:
    with metering(folder) as nginx:
        # Old enough at that time, whichever it is.
        old = NOON + timedelta(days=jump - 405)
        file = folder / "state" / "usage" / f"{old:%Y-%m-%d}.json"
        file.write_text('{"schema":"llm-fleet-usage/1","hours":{},"rows":[]}')
        file.chmod(0o666)
        add(nginx)
        nginx.do(
            "local time = ngx.time "
            f"ngx.time = function() return time() + {jump} * 86400 end return 1"
        )
        until(lambda: f"{NOON:%Y-%m-%d}" in days(nginx))
        until(lambda: not nginx.do("return ngx.shared.usage:get('d1') or false")[0])
        assert file.exists() == is_kept


DAMAGE = [
    b"", b"{", b"[]", b"\0" * 4096, b'{"schema":"other/1","hours":{},"rows":[]}',
    b'{"schema":"llm-fleet-usage/1","hours":{},"rows":[{"key":"a"}]}',
    b'{"schema":"llm-fleet-usage/1","hours":{},"rows":[7]}',
    b'{"schema":"llm-fleet-usage/1","rows":[]}',
    b'{"schema":"llm-fleet-usage/1","hours":{},"rows":[%s]}' % json.dumps(row(-1)).encode(),
    b'{"schema":"llm-fleet-usage/1","hours":{"23":7},"rows":[]}',
    b'{"schema":"llm-fleet-usage/1","hours":{"23":{"a":"x"}},"rows":[]}',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_put_aside_and_told(folder: Path, damage: bytes) -> None:
    with metering(folder, starts=False) as nginx:
        usage = folder / "state" / "usage"
        usage.mkdir()
        usage.chmod(0o777)
        day = f"{NOON:%Y-%m-%d}"
        (usage / f"{day}.json").write_bytes(damage)
        nginx.start()
        add(nginx)
        nginx.stop()
        assert total(nginx) == 1
        (aside,) = usage.glob("*.damaged-*")
        assert aside.read_bytes() == damage
        assert nginx.errors().count("is damaged, it is put aside as") == 1


def test_a_file_that_cannot_be_read_is_not_overwritten(folder: Path) -> None:
    with metering(folder, starts=False) as nginx:
        usage = folder / "state" / "usage"
        usage.mkdir()
        usage.chmod(0o777)
        file = usage / f"{NOON:%Y-%m-%d}.json"
        text = json.dumps({"schema": "llm-fleet-usage/1", "hours": {}, "rows": [row(9)]})
        file.write_text(text)
        file.chmod(0o600)  # root's
        nginx.start()
        add(nginx)
        nginx.stop()
        assert file.read_text() == text
        assert "usage is not kept on the disk" in nginx.errors()
        assert "Permission denied" in nginx.errors()


def test_a_folder_that_is_missing_is_told_and_used_when_it_is_there(folder: Path) -> None:
    with metering(folder, starts=False) as nginx:
        (folder / "state").rmdir()
        nginx.start()
        add(nginx)
        time.sleep(4)
        assert nginx.errors().count("usage is not kept on the disk") == 1
        assert "state/usage: No such file or directory" in nginx.errors()
        (folder / "state").mkdir()
        (folder / "state").chmod(0o777)
        nginx.stop()
        assert total(nginx) == 1


def test_a_full_dictionary_is_told_and_counts_nothing_by_halves(folder: Path) -> None:
    with metering(folder, memory="64k") as nginx:
        add(nginx, model="m0")
        nginx.do("ngx.sleep(1.5) return 1")
        nginx.do(
            "for number = 1, 2000 do require('gateway_store').add('team', 'm' .. number, 'gpu1', "
            "{ requests = 1, prompt = 5, cached = 2, completion = 7, estimated = 1 }) end return 1"
        )
        # What had room before goes on to be counted.
        add(nginx, model="m0")
        nginx.stop()
        told = nginx.errors().count("usage is not counted in full: no memory")
        rows = [item for kept in days(nginx).values() for item in kept]
        assert [item for item in rows if item != row(item["requests"], model=item["model"])] == []
        assert sum(item["requests"] for item in rows) + told == 2002
        assert told > 1000
        assert next(item for item in rows if item["model"] == "m0")["requests"] == 2


@pytest.mark.parametrize(
    ("now", "left"),
    [
        ("2026-11-30T23:59:50", {"h": 10, "d": 10, "mo": 10}),
        ("2026-12-01T00:00:00", {"h": 3600, "d": 86400, "mo": 31 * 86400}),
        ("2028-02-29T12:00:00", {"h": 3600, "d": 43200, "mo": 43200}),
        ("2026-02-28T12:00:00", {"h": 3600, "d": 43200, "mo": 43200}),
        ("2100-02-28T12:00:00", {"h": 3600, "d": 43200, "mo": 43200}),
    ],
)
def test_a_window_ends_with_its_hour_day_or_month_of_utc(
    folder: Path, now: str, left: dict[str, int]
) -> None:
    moment = int(datetime.fromisoformat(f"{now}+00:00").timestamp())
    with metering(folder) as nginx:
        for window, seconds in left.items():
            found = nginx.do(
                f"local time = ngx.time; ngx.time = function() return {moment} end "
                f"local tokens, left = require('gateway_store').spent('team', '{window}') "
                "ngx.time = time return tokens, left"
            )
            assert found == [0, seconds], window


def test_what_a_key_spent_is_its_own_and_of_this_window(folder: Path) -> None:
    with metering(folder) as nginx:
        found = nginx.do(
            "local store, time, now = require('gateway_store'), ngx.time, 1796083190 "
            "ngx.time = function() return now end "
            "local function add(key) store.add(key, 'm', 'g', "
            "{ requests = 1, prompt = 5, cached = 0, completion = 7, estimated = 0 }) end "
            "add('a') add('a') add('b') now = now + 20 add('a') "
            "local result = { (store.spent('a', 'h')), (store.spent('a', 'd')), "
            "(store.spent('a', 'mo')), (store.spent('b', 'mo')) } ngx.time = time return result"
        )  # 2026-11-30T23:59:50
        (values,) = found
        assert values == [12, 12, 12, 0]


def test_nobody_waits_for_a_busy_disk(folder: Path) -> None:
    with metering(folder, starts=False) as nginx:
        program = folder / "programs" / "gateway_disk.lua"
        begin = "function M.write(folder, name, text)\n"
        text = program.read_text()
        assert begin in text
        program.write_text(text.replace(begin, f"{begin}  os.execute('sleep 3')\n"))
        nginx.start()
        longest = 0.0
        begun = time.monotonic()
        while not total(nginx):
            asked = time.monotonic()
            add(nginx)
            longest = max(longest, time.monotonic() - asked)
            assert asked < begun + 20
            time.sleep(0.01)
        assert time.monotonic() - begun > 3
        # Of a machine that does much else.
        assert longest < 1.5

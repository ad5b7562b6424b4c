"""Which server nginx sends a request to, and how often it tries."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.gateway.routed import FakeServer, Routed, routed, started, until

FULL = (503, '{"error":"server busy, please try again.  maximum pending requests exceeded"}')


@contextmanager
def _running(
    directory: Path, *servers: FakeServer, workers: int = 1, model: str = "m:1b"
) -> Iterator[Routed]:
    """An nginx that has looked at each of `servers`."""
    with started(*servers):
        declared = [one.declared() for one in servers]
        with routed(directory, *declared, workers=workers) as gateway:
            until(lambda: all(one.looks for one in servers))
            yield gateway


def _servers(count: int) -> list[FakeServer]:
    return [FakeServer(f"gpu{number}/m", "m:1b", "n:1b") for number in range(1, count + 1)]


def test_the_turns_of_a_conversation_go_to_one_server(tmp_path: Path) -> None:
    servers = _servers(2)
    with _running(tmp_path, *servers, workers=2) as gateway:
        talks = [f"system prompt, first question of conversation {number}" for number in range(8)]
        turns = [[gateway.ask("m:1b", talk).server for talk in talks] for _ in range(6)]
    assert all(turn == turns[0] for turn in turns[1:])
    assert len(set(turns[0])) == 2


def _by_talk(gateway: Routed, model: str, count: int) -> list[str]:
    return [server for server, _ in gateway.chosen(model, count, talk="conversation ")]


def test_talks_are_spread_evenly_and_keep_their_server_when_another_goes(tmp_path: Path) -> None:
    servers = _servers(4)
    with _running(tmp_path, *servers) as gateway:
        before = _by_talk(gateway, "m:1b", 4000)
        share = Counter(before)
        assert all(900 <= share[one.name] <= 1100 for one in servers), share
        # The same conversation with another model is another one.
        other = _by_talk(gateway, "n:1b", 4000)
        same = sum(one == another for one, another in zip(before, other, strict=True))
        assert 900 <= same <= 1100
        gone = servers[1]
        gone.kill()
        until(lambda: len(gateway.on("m:1b")) == 3)
        after = _by_talk(gateway, "m:1b", 4000)
    moved = Counter(now for was, now in zip(before, after, strict=True) if was != now)
    assert all(was in (gone.name, now) for was, now in zip(before, after, strict=True))
    # To no single other one.
    assert all(280 <= count <= 390 for count in moved.values()), moved
    assert len(moved) == 3


def test_no_server_has_more_than_its_part_however_alike_the_talks_are(tmp_path: Path) -> None:
    servers = _servers(3)
    for one in servers:
        one.answer = 2.5  # s
    with _running(tmp_path, *servers, workers=2) as gateway, ThreadPoolExecutor(24) as pool:
        for total in range(1, 25):
            pool.submit(gateway.ask, "m:1b", "the same talk for all")
            until(lambda total=total: sum(gateway.in_flight().values()) == total, 2)
            most = max(gateway.in_flight().values())
            assert most <= math.ceil(1.25 * total / 3), (total, gateway.in_flight())
        until(lambda: not any(gateway.in_flight().values()), 10)


def test_without_a_talk_the_least_loaded_server_is_asked(tmp_path: Path) -> None:
    servers = _servers(3)
    with _running(tmp_path, *servers) as gateway, ThreadPoolExecutor(8) as pool:
        assert len({gateway.ask("m:1b").server for _ in range(40)}) == 3
        for one in servers:
            one.answer = 1.5
        for total in range(1, 7):
            pool.submit(gateway.ask, "m:1b")
            until(lambda total=total: sum(gateway.in_flight().values()) == total, 2)
            counts = gateway.in_flight().values()
            assert max(counts) - min(counts) <= 1
        until(lambda: not any(gateway.in_flight().values()), 10)


def test_a_request_that_ends_servers_meets_two_at_most(tmp_path: Path) -> None:
    servers = _servers(4)
    with _running(tmp_path, *servers) as gateway:
        # Kept connections, which nginx does not count when they are lost.
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: gateway.ask("m:1b", str(number)), range(64)))
        for one in servers:
            one.seen.clear()
            one.answer = None
        for number in range(10):
            assert gateway.ask("m:1b", f"deadly {number}").status == 502
            hit = [one.name for one in servers for _ in one.seen]
            assert len(hit) <= 2, hit
            assert len(set(hit)) == len(hit), hit
            for one in servers:
                one.seen.clear()
            until(lambda: len(gateway.on("m:1b")) == 4)
        assert not any(gateway.in_flight().values())


def test_the_only_server_is_tried_twice_at_most(tmp_path: Path) -> None:
    one = FakeServer("one", "m:1b")
    with _running(tmp_path, one) as gateway:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: gateway.ask("m:1b", str(number)), range(32)))
        one.seen.clear()
        one.answer = None
        assert gateway.ask("m:1b").status == 502
        assert 1 <= len(one.seen) <= 2


def test_a_full_queue_is_passed_on_to_another_and_no_failure(tmp_path: Path) -> None:
    servers = _servers(2)
    with _running(tmp_path, *servers) as gateway:
        servers[0].answer = FULL
        looks = len(servers[0].looks)
        answers = [gateway.ask("m:1b", f"talk {number}", body='{"a":1}') for number in range(20)]
        assert {(item.status, item.server) for item in answers} == {(200, servers[1].name)}
        assert {item.tries for item in answers} == {1, 2}
        assert {body for _, _, body in servers[1].seen} == {b'{"a":1}'}
        # It is full and not down: nobody has to look at once.
        assert len(servers[0].looks) - looks < 8
        assert gateway.on("m:1b") == {one.name for one in servers}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_where_all_are_full_the_client_gets_what_a_server_says(tmp_path: Path, count: int) -> None:
    servers = _servers(count)
    with _running(tmp_path, *servers) as gateway:
        for one in servers:
            one.answer = FULL
        answer = gateway.ask("m:1b", "talk")
        assert (answer.status, answer.text) == FULL
        assert sum(len(one.seen) for one in servers) == min(count, 2)


def test_another_try_never_goes_to_a_server_without_the_model(tmp_path: Path) -> None:
    """Nor to one that knows it by another name alone: the request has been written."""
    has, lacks, spelt = (
        FakeServer(name, "other:1b", surface="openai") for name in ("has", "lacks", "spelt")
    )
    has.entries, lacks.entries, spelt.entries = [{"id": "m:1b"}], [{"id": "o"}], [{"id": "M:1B"}]
    with _running(tmp_path, has, lacks, spelt) as gateway:
        until(lambda: gateway.on("m:1b", surface="openai") == {"has", "spelt"})
        for answer in (None, FULL):
            has.answer = spelt.answer = answer
            for number in range(10):
                until(lambda: gateway.on("m:1b", surface="openai") == {"has", "spelt"})
                for one in (has, spelt):
                    one.seen.clear()
                said = gateway.ask("m:1b", str(number), surface="openai")
                assert said.status in (502, 503)
                # A kept connection that was lost is tried anew, at the same server.
                assert 0 in (len(has.seen), len(spelt.seen))
        assert not lacks.seen


def test_ollama_is_asked_by_the_name_that_the_client_wrote(tmp_path: Path) -> None:
    """It knows it in any spelling, and so does another one that lists it in yet another."""
    one, two = FakeServer("one", "M:latest"), FakeServer("two", "m:latest")
    vllm = FakeServer("vllm", surface="openai")
    vllm.entries = [{"id": "M"}]
    with _running(tmp_path, one, two, vllm) as gateway:
        until(lambda: len(gateway.on("m", surface="openai")) == 3)
        assert set(gateway.chosen("m", 40)) == {("one", "m"), ("two", "m")}
        assert set(gateway.chosen("M:Latest", 40, surface="openai")) == {
            ("one", "M:Latest"), ("two", "M:Latest"), ("vllm", "M"),
        }  # fmt: skip
        one.answer = FULL
        answers = [gateway.ask("m", str(number)) for number in range(10)]
        assert {(item.status, item.server) for item in answers} == {(200, "two")}


def test_an_answer_that_has_begun_is_not_tried_again(tmp_path: Path) -> None:
    servers = _servers(2)
    with _running(tmp_path, *servers) as gateway:
        for one in servers:
            one.answer = (500, '{"error":"of the model"}')
        answer = gateway.ask("m:1b", "talk")
        assert (answer.status, answer.tries, answer.text) == (500, 1, '{"error":"of the model"}')
        assert gateway.on("m:1b") == {one.name for one in servers}


def test_what_is_in_flight_is_counted_where_it_is(tmp_path: Path) -> None:
    servers = _servers(2)
    with _running(tmp_path, *servers) as gateway:
        servers[0].answer = FULL
        servers[1].answer = 1.0
        threads = [threading.Thread(target=gateway.ask, args=("m:1b", str(n))) for n in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: gateway.in_flight()[servers[1].name] == 4, 3)
        assert gateway.in_flight()[servers[0].name] == 0
        for thread in threads:
            thread.join()
        time.sleep(0.05)
        assert not any(gateway.in_flight().values())

"""How soon nginx knows that a server is gone, back, or frozen, and what that costs nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.unit.gateway.routed import Answer, FakeServer, Routed, routed, started, until

# From a server's death until no request goes there: 2 s, and what a busy machine needs besides;
# tests/lab measures it.
KNOWN = 3.0  # s


@contextmanager
def asking(
    gateway: Routed, model: str = "m:1b", talks: int = 8
) -> Iterator[list[tuple[float, Answer]]]:
    """Requests of several talks, 25 a second, until the end: when each began, and its answer."""
    answers: list[tuple[float, Answer]] = []
    ended = threading.Event()

    def ask(turn: int) -> None:
        began = time.monotonic()
        answers.append((began, gateway.ask(model, f"talk {turn % talks}")))

    def every() -> None:
        with ThreadPoolExecutor(8) as pool:
            turn = 0
            while not ended.wait(0.04):
                pool.submit(ask, turn)
                turn += 1

    thread = threading.Thread(target=every)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def _pair(*models: str) -> tuple[FakeServer, FakeServer]:
    names = models or ("m:1b",)
    return FakeServer("one", *names), FakeServer("two", *names)


def _deaf(server: FakeServer) -> Callable[[], None]:
    """Has nobody reach the port of `server`, as where packets are dropped: its queue is full."""
    server.kill()
    queue = socket.socket()
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    queue.bind(("127.0.0.1", server.port))
    queue.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", server.port))

    def end() -> None:
        for one in (*waiting, queue):
            one.close()

    return end


@pytest.mark.parametrize("how", ["killed", "dropped", "frozen"])
def test_a_server_that_is_gone_is_asked_no_longer_and_again_when_it_is_back(
    tmp_path: Path, how: str
) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared(), workers=3) as gateway:
        until(lambda: one.looks and two.looks)
        with asking(gateway) as answers:
            until(lambda: len({answer.server for _, answer in answers}) == 2)
            died = time.monotonic()
            end = None
            if how == "killed":
                two.kill()
            elif how == "dropped":
                end = _deaf(two)
            else:
                two.frozen = True
            # A frozen process may be a busy one: it is looked at twice.
            limit = KNOWN + (0.8 if how == "frozen" else 0)
            until(lambda: gateway.on("m:1b") == {"one"}, limit)
            known = time.monotonic()
            assert known - died < limit
            time.sleep(1.5)
            later = [answer for began, answer in answers if began > known]
            assert len(later) > 20
            assert {(item.status, item.server, item.tries) for item in later} == {(200, "one", 1)}
            if how == "killed":
                # Who met it was served by the other one.
                assert {answer.status for _, answer in answers} == {200}
            if end:
                end()
            two.frozen = False
            if how != "frozen":
                two.start()
            until(lambda: gateway.on("m:1b") == {"one", "two"}, 2)
    # Requests that a frozen server has taken are its own.
    if how != "frozen":
        assert {answer.status for _, answer in answers} == {200}


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, seconds: int) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared()) as gateway:
        until(lambda: one.looks and two.looks)
        two.kill()
        until(lambda: gateway.on("m:1b") == {"one"})
        gateway.call("jump", seconds=seconds)
        two.start()
        until(lambda: gateway.on("m:1b") == {"one", "two"})
        two.kill()
        until(lambda: gateway.on("m:1b") == {"one"})


def test_one_request_that_fails_is_enough_for_all(tmp_path: Path) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared(), workers=2) as gateway:
        until(lambda: one.looks and two.looks)
        talk = next(
            name for name in map(str, range(99)) if gateway.ask("m:1b", name).server == "two"
        )
        two.kill()
        assert gateway.ask("m:1b", talk) == Answer(200, "one", 2, '{"done":true}')
        time.sleep(0.1)
        for _ in range(20):
            assert gateway.ask("m:1b", talk)[:3] == (200, "one", 1)


def test_the_only_server_is_asked_all_the_same_after_one_request_failed(tmp_path: Path) -> None:
    one = FakeServer("one", "m:1b")
    with started(one), routed(tmp_path, one.declared()) as gateway:
        until(lambda: one.looks)
        one.answer = None
        assert gateway.ask("m:1b").status == 502
        one.answer = (200, "{}")
        assert {gateway.ask("m:1b").status for _ in range(20)} == {200}


def test_a_request_that_fails_at_last_has_somebody_look(tmp_path: Path) -> None:
    """... at once, and not in its turn; and nobody does while somebody is looking."""
    one = FakeServer("one", "m:1b")
    with started(one), routed(tmp_path, one.declared(), workers=4) as gateway:
        until(lambda: one.looks)
        one.answer, looks = None, len(one.looks)
        for number in range(1, 9):
            assert gateway.ask("m:1b").status == 502
            until(lambda number=number: len(one.looks) >= looks + number)
            time.sleep(0.05)
        one.list_delay, one.most_looking = 0.4, 0
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda _: gateway.ask("m:1b"), range(60)))
        assert one.most_looking == 1


def test_who_hangs_up_is_down_after_one_look(tmp_path: Path) -> None:
    """As where a process ends, and where something else has its port."""
    one, two = _pair()
    with started(one, two), socket.create_server(("127.0.0.1", 0)) as port:
        looks: list[float] = []
        declared = two.declared(port=port.getsockname()[1])

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    link, _ = port.accept()
                    looks.append(time.monotonic())
                    link.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with routed(tmp_path, one.declared(), declared) as gateway:
            until(lambda: gateway.on("m:1b") == {"one"})
            assert len(looks) == 1
        port.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_looks_are_spread_and_never_two_at_once(tmp_path: Path) -> None:
    servers = [FakeServer(f"s{number}", "m:1b") for number in range(6)]
    with started(*servers):
        declared = [one.declared() for one in servers]
        with routed(tmp_path, *declared, workers=4) as gateway:
            until(lambda: all(one.looks for one in servers))
            servers[0].frozen = True
            before = [len(one.looks) for one in servers]
            time.sleep(4)
            looks = [len(one.looks) - count for one, count in zip(servers, before, strict=True)]
            # Four seconds are five looks; a frozen one holds up nobody.
            assert looks[0] == 0
            assert all(4 <= count <= 6 for count in looks[1:]), looks
            assert gateway.on("m:1b") == {f"s{number}" for number in range(1, 6)}
            servers[0].frozen = False
        first = [one.looks[2] - servers[1].looks[2] for one in servers[2:]]
        assert max(first) - min(first) > 0.2  # not all in one moment


@pytest.mark.parametrize(
    "answer", [(500, "{}"), (200, "no list"), (200, '{"error":"?"}'), (404, "")]
)
def test_what_answers_but_lists_no_models_is_down(tmp_path: Path, answer: tuple[int, str]) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared()) as gateway:
        until(lambda: one.looks and two.looks)
        two.list_answer = answer
        until(lambda: gateway.on("m:1b") == {"one"}, 3)
        assert "two gets no requests until it answers: " in gateway.log()
        two.list_answer = None
        until(lambda: gateway.on("m:1b") == {"one", "two"}, 2)
        assert "two answers again" in gateway.log()


def test_a_reload_forgets_nothing_and_fails_nobody(tmp_path: Path) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared(), workers=2) as gateway:
        until(lambda: one.looks and two.looks)
        two.kill()
        until(lambda: gateway.on("m:1b") == {"one"})
        with asking(gateway) as answers:
            for _ in range(3):
                gateway.reload(one.declared(), two.declared())
                time.sleep(0.2)
        assert len(answers) > 10
        assert {(item.status, item.server, item.tries) for _, item in answers} == {(200, "one", 1)}


def _share(gateway: Routed, server: FakeServer) -> float:
    """The part of many conversations that a server gets now."""
    chosen = gateway.chosen("m:1b", 1000, talk="conversation ")
    return sum(name == server.name for name, _ in chosen) / len(chosen)


def _grows(gateway: Routed, server: FakeServer) -> None:
    began = time.monotonic()
    shares = [_share(gateway, server)]
    assert shares[0] < 0.35
    while time.monotonic() < began + 10:
        time.sleep(2)
        shares.append(_share(gateway, server))
    assert shares == sorted(shares)
    assert 0.45 < shares[-1] < 0.55


def test_the_share_of_a_server_that_is_back_grows_slowly(tmp_path: Path) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared()) as gateway:
        until(lambda: one.looks and two.looks)
        two.kill()
        until(lambda: gateway.on("m:1b") == {"one"})
        two.start()
        until(lambda: gateway.on("m:1b") == {"one", "two"})
        _grows(gateway, two)


def test_the_share_of_a_server_that_is_let_in_grows_slowly(tmp_path: Path) -> None:
    """As `fleet undrain` and deploys let one in."""
    one, two = _pair()
    with started(one, two):
        both = one.declared(), two.declared()
        with routed(tmp_path, *both, idle=("two",)) as gateway:
            until(lambda: one.looks and two.looks)
            assert gateway.on("m:1b") == {"one"}
            gateway.reload(*both)
            assert gateway.on("m:1b") == {"one", "two"}
            _grows(gateway, two)


def test_at_the_start_of_nginx_all_servers_count_as_well(tmp_path: Path) -> None:
    one, two = _pair()
    with started(one, two), routed(tmp_path, one.declared(), two.declared()) as gateway:
        assert gateway.ask("m:1b", "talk").status == 200
        assert 0.45 < _share(gateway, two) < 0.55

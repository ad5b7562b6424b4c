"""vLLM behind the gateway on real hosts: what it is ready by, and what becomes of a broken one.

The stand-in in `lab/vllm` says and does what vLLM 0.32 was seen to; it is installed as a package.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.conftest import LabUnderTest, Result
from tests.lab.load import under_load
from tests.lab.vllm_index import prepare, write_lock

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/inventories/vllm.py")
HOSTS = ("gpu1", "gpu2")
UNIT = "vllm@tiny.service"
MODEL, ALIAS = "gpt-oss:20b", "openai/gpt-oss-20b"
_SOON = 120.0


class Served:
    """The fleet as its clients and its operators use it."""

    def __init__(self, lab: LabUnderTest, lock: Path) -> None:
        self.lab, self.lock = lab, str(lock)
        self.url = f"http://{lab.state['hosts']['edge']['address']}:8434"
        self.key = ""

    def deploy(self, **environment: str) -> dict[str, list[str]]:
        """Converge; each operation that changed something, and where."""
        return self.lab.deploy(inventory=INVENTORY, LOCK=self.lock, **environment)

    def fleet(self, *words: str, check: bool = True) -> Result:
        """`fleet WORDS`, as an operator runs it."""
        return self.lab.fleet(*words, check=check, LOCK=self.lock)

    def failing(self, **environment: str) -> dict[str, list[str]]:
        """What of the compliance checks fails, and where."""
        return self.lab.failing(inventory=INVENTORY, LOCK=self.lock, **environment)

    def ask(self, path: str, **body: Any) -> requests.Response:
        """A request of a client to the gateway."""
        return requests.post(
            f"{self.url}{path}",
            headers={"Authorization": f"Bearer {self.key}"},
            json=body,
            timeout=120,
            stream=bool(body.get("stream")),
        )

    def chat(self, model: str = MODEL, tokens: int = 2, **more: Any) -> requests.Response:
        """A short chat."""
        messages = [{"role": "user", "content": "Hello"}]
        return self.ask(
            "/v1/chat/completions", model=model, messages=messages, max_tokens=tokens, **more
        )

    def shown(self, host: str, *names: str) -> dict[str, str]:
        """What systemd tells of the server's unit."""
        words = " ".join(f"-p {name}" for name in names)
        lines = self.lab.ssh(host, f"systemctl show {words} {UNIT}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def engine(self, host: str) -> str:
        """The process of the server's engine."""
        # The kernel keeps 15 letters of a name; who writes over its arguments has them all there.
        find = "pgrep -f '^VLLM::EngineCore' || pgrep '^VLLM::EngineCor$'"
        [pid, *_] = self.lab.ssh(host, find).split()
        return pid

    def answers(self, host: str) -> bool:
        """Whether the server of `host` makes a token, asked there."""
        address = self.lab.state["hosts"][host]["address"]
        body = json.dumps({"model": MODEL, "prompt": "Hello", "max_tokens": 1})
        said = self.lab.ssh(
            host,
            f"curl -sS -o /dev/null -w '%{{http_code}}' --max-time 5 -H 'Content-Type: "
            f"application/json' -d '{body}' http://{address}:8000/v1/completions",
            check=False,
        )
        return said == "200"


def wait(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + _SOON
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(1)


@pytest.fixture(scope="module")
def served(bare_lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two hosts that were bare, deployed once."""
    lock = tmp_path_factory.mktemp("vllm") / "vllm.lock"
    write_lock(lock)
    for host in HOSTS:
        prepare(bare_lab, host)
    fleet = Served(bare_lab, lock)
    fleet.deploy()
    fleet.key = fleet.fleet("key", "show", str(INVENTORY), "lab").stdout.strip()
    return fleet


def test_deployed_again_it_changes_nothing(served: Served) -> None:
    assert served.deploy() == {}


def test_is_as_declared(served: Served) -> None:
    assert served.failing() == {}


def test_clients_need_not_know_the_runtime(served: Served) -> None:
    for name in (MODEL, ALIAS):
        answer = served.chat(name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0
    said = served.ask("/v1/messages", model=MODEL, max_tokens=2,
                      messages=[{"role": "user", "content": "Hello"}])  # fmt: skip
    assert said.status_code == 200, said.text
    # What no key of vLLM's guards is on no list of the gateway's.
    assert served.ask("/invocations", model=MODEL, prompt="Hello").status_code == 404


def test_engine_that_dies_is_started_again(served: Served) -> None:
    before = served.shown("gpu1", "InvocationID", "NRestarts")
    served.lab.ssh("gpu1", f"kill -9 {served.engine('gpu1')}")
    wait(lambda: served.shown("gpu1", "InvocationID")["InvocationID"] != before["InvocationID"])
    wait(lambda: served.answers("gpu1"))
    assert int(served.shown("gpu1", "NRestarts")["NRestarts"]) > int(before["NRestarts"])
    assert served.chat().status_code == 200


def test_frozen_engine_is_found_and_restarted(served: Served) -> None:
    """Its own /health says 200 all the while."""
    before = served.shown("gpu1", "InvocationID")
    served.lab.ssh("gpu1", f"kill -STOP {served.engine('gpu1')}")
    address = served.lab.state["hosts"]["gpu1"]["address"]
    assert not served.answers("gpu1")
    served.lab.ssh("gpu1", f"curl -fsS http://{address}:8000/health || systemctl is-active {UNIT}")
    wait(lambda: served.shown("gpu1", "InvocationID") != before)
    wait(lambda: served.answers("gpu1"))
    said = served.lab.ssh("gpu1", "journalctl -o cat -u vllm-watch@tiny.service")
    assert "its counters stand still" in said


def test_busy_one_is_left_alone(served: Served) -> None:
    """More than it takes at once, for longer than its watch waits: nobody restarts it."""
    before = {host: served.shown(host, "InvocationID") for host in HOSTS}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: served.chat(tokens=600).status_code, range(16)))
    assert set(answers) <= {200, 503}
    assert {host: served.shown(host, "InvocationID") for host in HOSTS} == before


def test_queue_has_an_end(served: Served) -> None:
    """Four are answered and four wait; each of the others is told, and none waits for ever."""
    address = served.lab.state["hosts"]["gpu1"]["address"]
    ask = (
        f"curl -sS -o /dev/null -w '%{{http_code}}\\n' -H 'Content-Type: application/json' -d "
        f"'{json.dumps({'model': MODEL, 'prompt': 'Hello', 'max_tokens': 200})}' "
        f"http://{address}:8000/v1/completions"
    )
    said = served.lab.ssh("gpu1", f"for i in $(seq 20); do {ask} & done; wait").split()
    counted = Counter(said)
    assert counted["200"] >= 8
    assert counted["503"] > 0


def test_drained_host_ends_its_streams(served: Served) -> None:
    """... as they began: none is told `abort`, which looks like an answer."""
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(lambda: served.chat(tokens=250, stream=True).text) for _ in range(4)]
        served.fleet("drain", str(INVENTORY), "gpu1")
        texts = [stream.result() for stream in streams]
    assert all(text.rstrip().endswith("data: [DONE]") for text in texts)
    assert [text for text in texts if '"abort"' in text] == []
    served.lab.ssh("gpu1", f"systemctl restart {UNIT}")
    served.fleet("undrain", str(INVENTORY), "gpu1")
    assert served.answers("gpu1"), "it was let in before it was ready"


def test_changed_server_is_restarted_host_by_host(served: Served) -> None:
    """... and no client notices, though it takes seconds until each is ready."""
    changed = json.dumps({"max_sequences": 8})
    before = {host: served.shown(host, "InvocationID") for host in HOSTS}
    with under_load(served.url, served.key, MODEL) as load:
        served.deploy(SERVER=changed)
    assert load.failures == [], load.asked
    assert load.streams
    now = {host: served.shown(host, "InvocationID") for host in HOSTS}
    assert [host for host in HOSTS if now[host] == before[host]] == []
    assert served.deploy(SERVER=changed) == {}


def test_server_that_does_not_start_fails_its_host_with_its_journal(served: Served) -> None:
    """The next host is left as it is, and serves on."""
    broken = json.dumps({"flags": {"no-such-flag-as-this".removeprefix("no-"): 1}})
    result = served.lab.pyinfra(
        "-y", inventory=INVENTORY, check=False, LOCK=served.lock, SERVER=broken
    )
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "unrecognized arguments: --such-flag-as-this" in said
    assert "does not answer one token of gpt-oss:20b" in said
    assert served.chat().status_code == 200
    served.deploy()
    assert served.deploy() == {}


def test_reboot(served: Served) -> None:
    """Server, watch and firewall are there again without a deploy."""
    served.lab.ssh("gpu1", "systemctl reboot", check=False)
    wait(lambda: served.answers("gpu1"))
    assert served.lab.ssh("gpu1", "systemctl is-active vllm-watch@tiny.timer") == "active"
    assert served.chat().status_code == 200


def test_nothing_of_it_is_left(served: Served) -> None:
    served.fleet("remove", str(INVENTORY), "gpu2", "--yes")
    left = served.lab.ssh(
        "gpu2",
        "ls -d /opt/vllm /var/cache/vllm /etc/systemd/system/*vllm* /usr/local/lib/llm-fleet"
        " 2>/dev/null; getent passwd vllm; systemctl list-units --plain --no-legend 'vllm*'",
        check=False,
    )
    assert left == ""

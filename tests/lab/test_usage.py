"""What `fleet usage` says is what the servers say, on real hosts with the real model."""

from __future__ import annotations

import json
import time
from itertools import cycle
from typing import Any

import pytest
import requests

from tests.lab.conftest import ROOT, LabUnderTest

INVENTORY = ROOT / "tests" / "lab" / "inventories" / "two_gateways.py"
GATEWAYS = ("edge", "gpu2")
MODEL = "gpt-oss:20b"
# Long enough that a prompt's template and its JSON are a small part of it.
STORY = " ".join(
    f"On day {day} the ship sailed {day * 7 % 40} miles to the north, and the cook made soup."
    for day in range(1, 13)
)
TOKENS = 40

Ask = tuple[str, dict[str, Any]]


class Metered:
    """A fleet of two GPU hosts and two gateways, and what its servers said that was used."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.hosts = {name: host["address"] for name, host in lab.state["hosts"].items()}
        self.key = lab.fleet("key", "show", INVENTORY, "lab").stdout.strip()
        self.gateways = cycle(GATEWAYS)
        # Tokens of answers that came to their end, and of those that were cut off.
        self.whole = self.cut = 0

    def directly(self, path: str, body: dict[str, Any]) -> tuple[int, int]:
        """What a server says of its own answer: tokens of prompt and completion."""
        whole = {**body, "stream": False}
        url = f"http://{self.hosts['gpu1']}:11434{path}"
        told = json.loads(
            self.lab.ssh("gpu1", f"curl -sS {url} --json @- <<'EOF'\n{json.dumps(whole)}\nEOF")
        )
        usage = told.get("usage", told)
        names = (
            ("prompt_eval_count", "prompt_tokens", "input_tokens"),
            ("eval_count", "completion_tokens", "output_tokens"),
        )
        prompt, completion = (next(usage[n] for n in of if n in usage) for of in names)
        return prompt, completion

    def call(self, path: str, body: dict[str, Any]) -> requests.Response:
        """The same of each gateway in turn."""
        address = self.hosts[next(self.gateways)]
        return requests.post(
            f"http://{address}:8434{path}", json=body, stream=True, timeout=120,
            headers={"Authorization": f"Bearer {self.key}"},
        )  # fmt: skip

    def ask(self, path: str, body: dict[str, Any], cut_after: int = 0) -> None:
        """Ask a gateway what a server is asked, too; leave after so many parts."""
        told = {**body, "options": {"num_predict": 1}} if cut_after else body
        prompt, completion = self.directly(path, told)
        with self.call(path, body) as answer:
            assert answer.status_code == 200, answer.text
            parts = 0
            for line in answer.iter_lines(chunk_size=1):
                parts += _says_something(line)
                if cut_after and parts >= cut_after:
                    break
        if cut_after:
            assert parts == cut_after, "the answer came to its end"
            self.cut += prompt + parts
        else:
            self.whole += prompt + completion

    def used(self, by: str = "key") -> dict[str, Any]:
        """`fleet usage --json`."""
        told: dict[str, Any] = json.loads(
            self.lab.fleet("usage", INVENTORY, "--by", by, "--json").stdout
        )
        return told


@pytest.fixture(scope="module")
def metered(bare_lab: LabUnderTest) -> Metered:
    bare_lab.deploy(inventory=INVENTORY)
    return Metered(bare_lab)


def _says_something(line: bytes) -> bool:
    """Whether a line of a stream has a part of the answer."""
    text = line.removeprefix(b"data: ")
    if not text.startswith(b"{"):
        return False
    part = json.loads(text)
    delta = part.get("delta")
    choices = [choice.get("delta", choice) for choice in part.get("choices", [])]
    found = [
        part.get("response"), part.get("message", {}).get("content"),
        delta if isinstance(delta, str) else (delta or {}).get("text"),
        *(choice.get("content") or choice.get("text") for choice in choices),
    ]  # fmt: skip
    return any(found) and not part.get("done")


def _asked(turn: int, *, stream: bool) -> list[Ask]:
    """A request in each dialect, other ones each turn, which have the same answer each time."""
    text = f"{STORY} What was made on day {turn}?"
    messages = [{"role": "user", "content": text}]
    options = {"temperature": 0, "num_predict": TOKENS}
    native = {"model": MODEL, "stream": stream, "options": options}
    openai = {"model": MODEL, "stream": stream, "temperature": 0}
    return [
        ("/api/chat", {**native, "messages": messages}),
        ("/api/generate", {**native, "prompt": text}),
        ("/v1/chat/completions", {**openai, "messages": messages, "max_tokens": TOKENS}),
        ("/v1/completions", {**openai, "prompt": text, "max_tokens": TOKENS}),
        ("/v1/responses", {**openai, "input": text, "max_output_tokens": TOKENS}),
        ("/v1/messages", {**openai, "messages": messages, "max_tokens": TOKENS}),
    ]


def _endless(turn: int) -> list[Ask]:
    """Requests whose answers go on: any token is as good as the one that ends an answer."""
    text = f"{STORY} How many miles were sailed on each day? {turn}"
    options = {
        "temperature": 1000, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1,
        "seed": turn, "num_predict": 1000,
    }  # fmt: skip
    native = {"model": MODEL, "stream": True, "options": options}
    return [
        ("/api/chat", {**native, "messages": [{"role": "user", "content": text}]}),
        ("/api/generate", {**native, "prompt": text}),
    ]


def _restart(lab: LabUnderTest, how: str) -> None:
    for gateway in GATEWAYS:
        health = f"http://{lab.state['hosts'][gateway]['address']}:8434/healthz"
        lab.ssh(gateway, f"{how}; until curl -fs -o /dev/null {health}; do sleep 0.2; done")


def test_what_was_used_is_what_the_servers_say(metered: Metered) -> None:
    for turn in range(1, 5):
        for stream in (False, True):
            for path, body in _asked(turn, stream=stream):
                metered.ask(path, body)
        for path, body in _endless(turn):
            metered.ask(path, body, cut_after=20)
        if turn == 1:
            _restart(metered.lab, "systemctl restart nginx")
        elif turn == 2:
            _restart(metered.lab, "systemctl reload nginx")
        elif turn == 3:
            time.sleep(6)
            _restart(metered.lab, "systemctl kill -s KILL nginx; sleep 1")
    time.sleep(6)
    total = metered.used()["total"]
    assert total["requests"] == 4 * (6 * 2 + 2)
    assert 0 < total["estimated_tokens"] < 2 * metered.cut
    gateway = total["prompt_tokens"] + total["completion_tokens"]
    server = metered.whole + metered.cut
    # Within a hundredth but for one request in seven here that was cut off: nobody tells of its
    # prompt, and it is estimated by its bytes.
    assert abs(gateway - server) <= metered.whole / 100 + metered.cut / 10, (total, server)


def test_it_is_the_same_by_every_part_and_in_the_log(metered: Metered) -> None:
    total = metered.used()["total"]
    told = metered.used("key,model,host,day")
    assert told["total"] == total
    assert {row["key"] for row in told["rows"]} == {"lab"}
    assert {row["model"] for row in told["rows"]} == {MODEL}
    assert {row["host"] for row in told["rows"]} <= {"gpu1", "gpu2"}
    logs = [metered.lab.ssh(host, "cat /var/log/llm-fleet/gateway.log") for host in GATEWAYS]
    entries = [json.loads(line) for log in logs for line in log.splitlines()]
    assert all(logs), "a gateway had no request"
    for kind in ("prompt_tokens", "completion_tokens"):
        assert sum(entry[kind] or 0 for entry in entries) == total[kind]


def test_what_is_kept_is_of_the_workers_user_alone(metered: Metered) -> None:
    shown = metered.lab.ssh(
        "edge", "stat -c '%U %a' /var/lib/llm-fleet-gateway /var/lib/llm-fleet-gateway/usage"
    )
    assert shown.splitlines() == ["www-data 750"] * 2
    assert metered.lab.ssh("edge", "grep -c usage /var/log/llm-fleet/error.log; true") == "0"

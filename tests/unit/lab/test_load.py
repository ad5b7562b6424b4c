"""What the bench reads of wrk, and asks with it."""

import json
import re

import pytest

from lab.bench_gateway import load
from lab.state import LabError

TOLD = """Running 1s test @ http://127.0.0.1:19003/v1/chat/completions
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.56ms   13.93ms  94.95ms   93.91%
    Req/Sec     4.25k     1.13k    5.86k    60.00%
  4355 requests in 1.06s, 1.43MB read
Requests/sec:   4126.27
Transfer/sec:      1.36MB
"""


def test_what_was_answered() -> None:
    assert load.read(TOLD) == load.Load(4355, 4126.27)


@pytest.mark.parametrize(
    "failure",
    [
        TOLD + "  Non-2xx or 3xx responses: 1\n",
        TOLD + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        TOLD.replace("4355", "0"),
        "unable to connect to 127.0.0.1:19003 Connection refused\n",
    ],
)
def test_a_request_that_failed_is_no_number(failure: str) -> None:
    with pytest.raises(LabError, match="not every request was answered"):
        load.read(failure)


@pytest.mark.parametrize("streamed", [False, True])
def test_each_request_is_another_conversation(streamed: bool) -> None:
    script = load.script("sk-1", streamed=streamed)
    parts = re.search(r"local head, tail, number = '(.*)', '(.*)', math", script)
    assert parts
    body = json.loads(f"{parts[1]}7{parts[2]}")
    said = body["prompt"] if streamed else body["messages"][0]["content"]
    assert said == f"7{'x' * 400}"
    assert '"Bearer sk-1"' in script

"""The counter of requests: the log is read as it grows and rotates, and told to Prometheus."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import gateway_metrics
from gateway_metrics import Metrics, follow, serve


def line(**changed: object) -> str:
    entry = {
        "key": "team-a", "path": "/v1/models", "status": 200, "bytes": 10, "duration": 0.2,
        "upstream": "10.0.0.1:11434", "first_byte": "0.04",
    }  # fmt: skip
    return json.dumps({**entry, **changed}) + "\n"


def samples(metrics: Metrics) -> dict[str, float]:
    rows = [row.rsplit(" ", 1) for row in metrics.text().splitlines() if row[0] != "#"]
    return {name: float(value) for name, value in rows}


def test_counts() -> None:
    metrics = Metrics()
    for text in (line(), line(duration=3, first_byte="-", upstream=""), line(status=429)):
        metrics.count(text)
    seen = samples(metrics)
    base = 'llm_gateway_requests_total{key="team-a",path="/v1/models"'
    assert (seen[base + ',status="200"}'], seen[base + ',status="429"}']) == (2, 1)
    assert seen['llm_gateway_sent_bytes_total{key="team-a"}'] == 30
    assert seen['llm_gateway_duration_seconds_bucket{key="team-a",le="0.1"}'] == 0
    assert seen['llm_gateway_duration_seconds_bucket{key="team-a",le="0.25"}'] == 2
    assert seen['llm_gateway_duration_seconds_bucket{key="team-a",le="+Inf"}'] == 3
    assert seen['llm_gateway_duration_seconds_sum{key="team-a"}'] == pytest.approx(3.4)
    assert seen['llm_gateway_first_byte_seconds_count{key="team-a"}'] == 2
    host = 'llm_gateway_upstream_requests_total{upstream="10.0.0.1:11434",status="200"}'
    assert seen[host] == 1


def test_last_tried_host_answered() -> None:
    metrics = Metrics()
    metrics.count(line(upstream="10.0.0.1:1, 10.0.0.2:1", first_byte="-, 0.3"))
    text = metrics.text()
    assert 'upstream="10.0.0.2:1"' in text
    assert 'upstream="10.0.0.1:1"' not in text


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/models/gpt-oss:20b", "/v1/models"),
        ("/hosts/gpu1/api/pull", "/hosts/*/api/pull"),
        ("/hosts/gpu1/api/push", "other"),
        ("/wp-login.php", "other"),
    ],
)
def test_a_scanner_makes_no_series(path: str, shown: str) -> None:
    metrics = Metrics()
    metrics.count(line(path=path))
    assert f'path="{shown}"' in metrics.text()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "garbage", line(duration="x")])
def test_unread_lines_are_counted(text: str) -> None:
    metrics = Metrics()
    metrics.count(text)
    assert samples(metrics)["llm_gateway_unread_lines_total"] == 1


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count(line(key='a"b\\c'))
    assert 'key="a\\"b\\\\c"' in metrics.text()


def test_log_is_followed_through_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_metrics, "POLL", 0.01)
    log = tmp_path / "gateway.log"
    log.write_text("old\n")
    lines: list[str] = []
    threading.Thread(
        target=lambda: lines.extend(text for text in _until(follow(log), "end\n")), daemon=True
    ).start()
    time.sleep(0.1)
    with log.open("a") as file:
        file.write("one\ntw")
        file.flush()
        time.sleep(0.05)
        file.write("o\n")
        file.flush()
        log.rename(tmp_path / "gateway.log.1")
        file.write("late\n")
    time.sleep(0.1)
    log.write_text("three\nend\n")
    deadline = time.monotonic() + 5
    while lines[-1:] != ["end\n"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lines == ["one\n", "two\n", "late\n", "three\n", "end\n"]


def _until(lines, last):
    for text in lines:
        yield text
        if text == last:
            return


def test_served() -> None:
    metrics = Metrics()
    metrics.count(line())
    server = serve(metrics, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"llm_gateway_requests_total" in answer.read()
    server.shutdown()
    server.server_close()

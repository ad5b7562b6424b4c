"""The counter of requests: the log is read as it grows and rotates, and told to Prometheus."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import gateway_metrics
from fleet.gateway.fields import ALLOWED
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


def metered(**changed: object) -> str:
    took = {
        "model": "gpt-oss:20b", "host": "gpu1", "prompt_tokens": 11, "cached_tokens": 4,
        "completion_tokens": 3, "estimated": False, "first_token": 0.3, "tokens_per_second": 42.5,
    }  # fmt: skip
    return line(**{"path": "/api/chat", **took, **changed})


def test_tokens_are_counted_by_key_model_and_host() -> None:
    metrics = Metrics()
    for text in (
        metered(), metered(cached_tokens=None, first_token=None, tokens_per_second=None),
        metered(host="gpu2", estimated=True),
    ):  # fmt: skip
        metrics.count(text)
    seen = samples(metrics)
    name = 'llm_gateway_tokens_total{key="team-a",model="gpt-oss:20b",host='
    found = {kind: seen[f'{name}"gpu1",kind="{kind}"}}'] for kind in ("prompt", "cached")}
    assert found == {"prompt": 22, "cached": 4}
    assert seen[name + '"gpu2",kind="completion"}'] == 3
    estimated = {n: v for n, v in seen.items() if n.startswith("llm_gateway_estimated")}
    assert list(estimated.values()) == [1]
    assert seen['llm_gateway_first_token_seconds_bucket{model="gpt-oss:20b",le="0.25"}'] == 0
    assert seen['llm_gateway_first_token_seconds_bucket{model="gpt-oss:20b",le="0.5"}'] == 2
    assert seen['llm_gateway_first_token_seconds_sum{model="gpt-oss:20b"}'] == pytest.approx(0.6)
    assert seen['llm_gateway_tokens_per_second_bucket{model="gpt-oss:20b",le="60.0"}'] == 2
    assert seen['llm_gateway_tokens_per_second_count{model="gpt-oss:20b"}'] == 2


def test_a_scanners_models_make_no_series() -> None:
    metrics = Metrics()
    for number in range(100):
        refused = {"host": "", "status": 404, "first_token": None, "tokens_per_second": None}
        metrics.count(metered(model=f"try-{number}", prompt_tokens=None, **refused))
    assert "try-" not in metrics.text()
    assert samples(metrics)["llm_gateway_unread_lines_total"] == 0


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/models/gpt-oss:20b", "/v1/models"),
        ("/hosts/gpu1/api/pull", "/hosts/*/api/pull"),
        ("/hosts/gpu1/a/api/pull/", "/hosts/*/api/pull"),
        ("/hosts/gpu1/api/push", "other"),
        ("/wp-login.php", "other"),
    ],
)
def test_a_scanner_makes_no_series(path: str, shown: str) -> None:
    metrics = Metrics()
    metrics.count(line(path=path))
    assert f'path="{shown}"' in metrics.text()


@pytest.mark.parametrize("path", [*ALLOWED, "v1/models", "api/tags", "api/ps", "api/version"])
def test_what_clients_may_call_has_a_series_of_its_own(path: str) -> None:
    """One, with a slash at its end or without."""
    metrics = Metrics()
    for written in (f"/{path}", f"/{path}/"):
        metrics.count(line(path=written))
    name = f'llm_gateway_requests_total{{key="team-a",path="/{path}",status="200"}}'
    assert samples(metrics)[name] == 2


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "garbage", line(duration="x"), metered(cached_tokens="x")]
)
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

"""The stand-in ``ollama`` starts, loads, unloads and dies like the real one.

Each row was first seen on the real server.
"""

import concurrent.futures
import ctypes
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.upstream import Upstream
from tests.lab.upstream.rig import FRANCE, MODEL, WEIGHTS, Lab, Server, cli, free_port, until

LONG = {"prompt": "Once upon a time", "raw": True, "options": {"num_predict": 400, "stop": []}}
BROKEN = "an error was encountered while running the model: unexpected EOF"


# Load and unload


def test_keep_alive(lab: Lab, idle: Path) -> None:
    server = lab.start(tree=idle)

    def load(path: str = "/api/generate", **more: Any) -> str:
        status, answer = server.ask(path, {"model": MODEL, **more})
        assert status == 200
        return str(answer["done_reason"])

    def left() -> timedelta:
        expires = server.running()[0]["expires_at"][:19]
        return datetime.fromisoformat(expires).replace(tzinfo=UTC) - datetime.now(UTC)

    assert load() == "load"
    assert timedelta(minutes=4) < left() <= timedelta(minutes=5)
    assert load("/api/chat", keep_alive=-1) == "load"
    assert left() > timedelta(days=36500)
    load()
    assert left() > timedelta(days=36500)
    load(keep_alive="90s")
    assert timedelta(seconds=80) < left() <= timedelta(seconds=90)
    child = server.child()
    assert load(keep_alive=0) == "unload"
    assert server.running() == []
    assert not Path(f"/proc/{child}").exists()


def test_answer_with_keep_alive_zero_unloads(lab: Lab) -> None:
    server = lab.start()
    status, answer = server.ask("/api/chat", {"model": MODEL, "messages": FRANCE, "keep_alive": 0})
    assert (status, answer["done_reason"], server.running()) == (200, "stop", [])


@pytest.mark.parametrize(
    ("env", "options", "want", "slot"),
    [
        ({}, {}, "-c 4096 -np 1 -b 512 -ub 512 --flash-attn auto", 4096),
        ({"OLLAMA_NUM_PARALLEL": "4"}, {}, "-c 16384 -np 4 -b 1024", 4096),
        ({"OLLAMA_CONTEXT_LENGTH": "8192"}, {}, "-c 8192 -np 1 -b 1024", 8192),
        (
            {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_CONTEXT_LENGTH": "8192"},
            {"num_ctx": 2048},
            "-c 8192 -np 4",
            2048,
        ),
        (
            {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_CONTEXT_LENGTH": "100000"},
            {},
            "-c 65536 -np 2 -b 2048",
            32768,
        ),
        (
            {"OLLAMA_KV_CACHE_TYPE": " 'q8_0' ", "OLLAMA_FLASH_ATTENTION": "1"},
            {},
            "--cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on",
            4096,
        ),
    ],
)
def test_command_line_of_the_child(
    lab: Lab, idle: Path, *, env: dict[str, str], options: dict[str, int], want: str, slot: int
) -> None:
    server = lab.start(tree=idle, **env)
    assert server.ask("/api/generate", {"model": MODEL, "options": options})[0] == 200
    line = " ".join(server.command_line())
    words = want.split()
    for flag, value in zip(words[::2], words[1::2], strict=True):
        assert f" {flag} {value} " in line + " "
    assert f"--model {server.blob} --port " in line
    assert "--host 127.0.0.1 --no-webui --offline" in line
    assert line.endswith("--no-jinja --chat-template chatml")
    assert server.running()[0]["context_length"] == slot


def test_other_options_load_anew(lab: Lab, idle: Path) -> None:
    server = lab.start(tree=idle)
    body = {"model": MODEL, "options": {"num_ctx": 512}}
    server.ask("/api/generate", body)
    first = server.child()
    server.ask("/api/generate", {**body, "options": {"num_ctx": 512, "temperature": 1}})
    assert server.child() == first
    server.ask("/api/generate", {"model": MODEL})
    assert server.child() != first


@pytest.mark.parametrize(
    "more",
    [
        {"shift": False},
        {"SHIFT": False},
        {"\u017fhift": False},
        {"options": {"draft_num_predict": 4}},
    ],
)
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_what_loads_anew_and_forgets_that_a_model_was_pinned(
    lab: Lab, idle: Path, path: str, more: dict[str, Any]
) -> None:
    server = lab.start(tree=idle)
    server.ask(path, {"model": MODEL, "keep_alive": -1})
    first = server.child()
    assert server.running()[0]["expires_at"] > "2100"
    server.ask(path, {"model": MODEL, **more})
    assert server.child() != first
    assert server.running()[0]["expires_at"] < "2100"
    assert ("--context-shift" in server.command_line()) == ("options" in more)


def test_what_loads_nothing_anew(lab: Lab, idle: Path) -> None:
    server = lab.start(tree=idle)
    server.ask("/api/generate", {"model": MODEL})
    first = server.child()
    server.ask("/api/generate", {"model": MODEL, "shift": True})
    names = (
        "numa f16_kv low_vram vocab_only logits_all use_mlock use_mmap NUM_CTX Draft_Num_Predict"
    )
    for name in names.split():
        value = 5 if name[0] in "ND" else True
        assert server.ask("/api/generate", {"model": MODEL, "options": {name: value}})[0] == 200
        assert server.child() == first, name
    # Whatever says so on /v1; this child answers nothing, so the status is of no interest.
    other = {"model": MODEL, "messages": FRANCE, "shift": False, "max_tokens": 1, "input": "x"}
    other |= {"options": {"num_ctx": 512, "draft_num_predict": 4}, "keep_alive": 0}
    for path in ("chat/completions", "responses", "messages"):
        server.ask(f"/v1/{path}", other)
        assert server.child() == first, path
    assert server.running()[0]["context_length"] == 4096


@pytest.mark.parametrize(("limit", "left"), [("1", 1), ("", 2)])
def test_max_loaded_models(lab: Lab, idle: Path, limit: str, left: int) -> None:
    server = lab.start(tree=idle, OLLAMA_MAX_LOADED_MODELS=limit)
    other = server.models / "blobs" / f"sha256-{'5' * 64}"
    other.hardlink_to(server.blob)
    manifest = server.models / "manifests/registry.ollama.ai/library/tiny/latest"
    text = manifest.read_text().replace(WEIGHTS, f"sha256:{'5' * 64}")
    manifest.unlink()
    manifest.write_text(text)
    for name in (MODEL, "tiny"):
        assert server.ask("/api/generate", {"model": name})[0] == 200
    assert len(server.running()) == len(server.children()) == left
    assert server.running()[-1 if left == 1 else 0]["name"].startswith("tiny")


def test_full_queue(lab: Lab, gated: Path) -> None:
    server = lab.start(tree=gated, OLLAMA_MAX_QUEUE="1")
    body = {"model": MODEL, "messages": FRANCE, "options": {"num_predict": 4}}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:

        def storm(n: int) -> list[concurrent.futures.Future[tuple[int, Any]]]:
            return [pool.submit(server.ask, "/api/chat", body) for _ in range(n)]

        loading = storm(1)
        until(server.children, "the child starts")
        others = storm(7)
        until(lambda: sum(future.done() for future in others) == 6, "six are refused")
        error = "server busy, please try again.  maximum pending requests exceeded"
        refused = [future.result() for future in others if future.done()]
        assert refused == [(503, {"error": error})] * 6
        (gated.parent / "open").touch()
        assert [future.result()[0] for future in (*loading, *others)].count(200) == 2
        assert [future.result()[0] for future in storm(6)] == [200] * 6


# The child's end, and the parent's


def test_killed_child(shared: Server) -> None:
    shared.ask("/api/generate", {"model": MODEL})
    os.kill(shared.child(), signal.SIGKILL)
    assert len(shared.running()) == 1
    status, answer = shared.ask("/api/chat", {"model": MODEL, "messages": FRANCE})
    assert (status, "Paris" in answer["message"]["content"]) == (200, True)


def cut(server: Server, path: str, body: dict[str, Any]) -> str:
    """Kill the child after the first bytes of a stream and return the whole answer."""
    with requests.post(server.url + path, json=body, stream=True, timeout=60) as answer:
        pieces = answer.iter_content(None)
        text = next(pieces)
        os.kill(server.child(), signal.SIGKILL)
        return (text + b"".join(pieces)).decode()


def test_child_killed_in_a_stream(shared: Server) -> None:
    shared.ask("/api/generate", {"model": MODEL})
    lines = cut(shared, "/api/generate", {"model": MODEL, **LONG}).splitlines()
    assert json.loads(lines[-1]) == {"error": BROKEN}


def test_child_killed_in_an_openai_stream(shared: Server) -> None:
    shared.ask("/api/generate", {"model": MODEL})
    body = {"model": MODEL, "prompt": "Once", "stop": [], "stream": True, "max_tokens": 400}
    body["messages"] = [{"role": "user", "content": "Tell a story."}]
    text = cut(shared, "/v1/chat/completions", body)
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    choice = last["choices"][0]
    assert (last["model"], choice["delta"]["content"], choice["finish_reason"]) == ("", "", None)
    assert "[DONE]" not in text
    assert "error" not in text


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
def test_child_killed_before_a_whole_answer(shared: Server, path: str) -> None:
    shared.ask("/api/generate", {"model": MODEL})
    body: dict[str, Any] = {"model": MODEL, "prompt": "Once", "stop": [], "max_tokens": 900, **LONG}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(shared.ask, path, body)
        time.sleep(0.5)
        os.kill(shared.child(), signal.SIGKILL)
        status, answer = asked.result()
    error = answer["error"]
    assert (status, error if path[1] == "a" else error["message"]) == (500, BROKEN)


def test_client_that_leaves_ends_the_generation(shared: Server) -> None:
    with requests.post(
        f"{shared.url}/api/generate", json={"model": MODEL, **LONG}, stream=True, timeout=60
    ) as r:
        next(r.iter_content(None))
    until(lambda: "cancel task" in shared.log.read_text(), "the child cancels", 5)


def test_sigterm_cuts_and_takes_the_child(lab: Lab) -> None:
    server = lab.start()
    server.ask("/api/generate", {"model": MODEL})
    child = server.child()
    with requests.post(
        f"{server.url}/api/generate", json={"model": MODEL, **LONG}, stream=True, timeout=60
    ) as r:
        pieces = r.iter_content(None)
        next(pieces)
        server.process.terminate()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(pieces)
    assert server.process.wait(2) == 0
    assert not Path(f"/proc/{child}").exists()


def test_sigkill_orphans_the_child(lab: Lab) -> None:
    server = lab.start()
    server.ask("/api/generate", {"model": MODEL})
    line, child = server.command_line(), server.child()
    server.process.kill()
    server.process.wait()
    url = f"http://127.0.0.1:{line[line.index('--port') + 1]}"
    body = {"prompt": "Once upon a time", "n_predict": 2}
    assert requests.post(f"{url}/completion", json=body, timeout=20).status_code == 200
    assert Path(f"/proc/{child}/stat").read_text().split()[3] != str(server.process.pid)


def test_child_runs_without_writable_code(lab: Lab) -> None:
    """What systemd's MemoryDenyWriteExecute and NoNewPrivileges set, set here with prctl."""
    prctl = (
        "import ctypes, os, sys; c = ctypes.CDLL(None)\n"
        "assert c.prctl(38, 1, 0, 0, 0) == 0 and c.prctl(65, 1, 0, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:
        pytest.skip("the kernel has no PR_SET_MDWE")
    server = lab.start(wrap=(sys.executable, "-c", prctl))
    status, answer = server.ask("/api/chat", {"model": MODEL, "messages": FRANCE})
    assert (status, "Paris" in answer["message"]["content"]) == (200, True)


# Start and command line


def test_version(cold: Server, upstream: Upstream) -> None:
    assert cli(cold, "-v").stdout == f"ollama version is {upstream.ollama_version}\n"
    alone = cli(cold, "--version", OLLAMA_HOST="127.0.0.1:1")
    assert alone.stdout == (
        "Warning: could not connect to a running Ollama instance\n"
        f"Warning: client version is {upstream.ollama_version}\n"
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1:99999", "invalid port, using default"),
        ("127.0.0.1:x", "default=11434"),
        ("http://127.0.0.1:x", "default=80"),
    ],
)
def test_bad_port_falls_back(cold: Server, host: str, said: str) -> None:
    assert said in cli(cold, "-v", OLLAMA_HOST=host).stderr


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OLLAMA_HOST": '"http://127.0.0.1:{port}/" '}, "OLLAMA_HOST:http://127.0.0.1:"),
        ({"OLLAMA_KEEP_ALIVE": "600"}, "OLLAMA_KEEP_ALIVE:10m0s"),
        ({"OLLAMA_KEEP_ALIVE": "-1"}, "OLLAMA_KEEP_ALIVE:2562047h"),
        ({"OLLAMA_KEEP_ALIVE": "soon"}, "OLLAMA_KEEP_ALIVE:5m0s"),
        ({"OLLAMA_NO_CLOUD": "no"}, "Ollama cloud disabled: true"),
        ({"OLLAMA_NO_CLOUD": "false"}, "Ollama cloud disabled: false"),
        ({"OLLAMA_MAX_QUEUE": "many"}, "invalid environment variable, using default"),
    ],
)
def test_environment(lab: Lab, env: dict[str, str], said: str) -> None:
    server = lab.start(seed=False, **env)
    assert said in server.log.read_text()


def test_first_start_makes_a_key(cold: Server) -> None:
    key = cold.home / ".ollama" / "id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    assert Path(f"{key}.pub").read_text().startswith("ssh-ed25519 ")


def test_unwritable_home_or_taken_port_ends_the_start(cold: Server, tmp_path: Path) -> None:
    taken = cli(cold, "serve")
    assert taken.returncode == 1
    assert taken.stderr.startswith("Error: listen tcp 127.0.0.1:")
    assert "address already in use" in taken.stderr
    (tmp_path / ".ollama").touch()
    homeless = cli(cold, "serve", HOME=str(tmp_path), OLLAMA_HOST=f"127.0.0.1:{free_port()}")
    assert homeless.returncode == 1

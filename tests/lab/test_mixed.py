"""One gateway for hosts that have different models, on real hosts."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from fleet.declare.stores import store_of
from fleet.kit.secrets import SecretStore
from tests.lab.conftest import BIN, ROOT, LabUnderTest, Result

INVENTORY = Path("tests/lab/inventories/mixed.py")
SMALL, LARGE, ALIAS = "gpt-oss:20b", "gpt-oss:120b", "gpt-4o"
OWNER = {SMALL: "gpu1", LARGE: "gpu2", ALIAS: "gpu2"}
KEYS = ("plain", "small", "renamed", "quota", "strict", "tuner")
FAR, FAR_KEY = "far:1b", "sk-of-another"
CHAT, MESSAGES, NATIVE = "/v1/chat/completions", "/v1/messages", "/api/chat"
DIALECTS = (CHAT, MESSAGES, NATIVE)


class Mixed:
    """The gateway of a fleet whose hosts differ, as its clients and its operators use it."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        hosts = lab.state["hosts"]
        self.url = f"http://{hosts['edge']['address']}:8434"
        self.hosts = {f"{hosts[name]['address']}:11434": name for name in ("gpu1", "gpu2")}
        self.keys = {name: self.fleet("key", "show", INVENTORY, name).stdout for name in KEYS}
        self.keys = {name: value.strip() for name, value in self.keys.items()}

    def fleet(self, *words: Any, check: bool = True, **environment: str) -> Result:
        """`fleet WORDS`, as an operator runs it."""
        done = subprocess.run(
            [str(word) for word in (BIN / "fleet", *words)],
            cwd=ROOT,
            env={"LLM_FLEET_LAB_ID": self.lab.id, "PATH": "/usr/bin:/bin", **environment},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def call(self, method: str, path: str, key: str = "plain", **more: Any) -> requests.Response:
        """A request with the value of `key`."""
        headers = {"Authorization": f"Bearer {self.keys[key]}", **more.pop("headers", {})}
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=120, **more)

    def chat(
        self, model: str, key: str = "plain", path: str = CHAT, **more: Any
    ) -> requests.Response:
        """A short chat, in the dialect of `path`."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        if path == NATIVE:
            body |= {"stream": False, "options": {"num_predict": 2, **more.pop("options", {})}}
        else:
            body["max_tokens"] = 2
        return self.call("POST", path, key, json=body | more)

    def answered_by(self, answer: requests.Response) -> str:
        """The host that the gateway asked for an answer of 200, by the gateway's log."""
        assert answer.status_code == 200, answer.text
        number = answer.headers["X-Request-Id"]
        end = time.monotonic() + 10
        while time.monotonic() < end:
            lines = self.lab.ssh("edge", "cat /var/log/llm-fleet/gateway.log").splitlines()
            found = [line for line in map(json.loads, lines) if line["id"] == number]
            if found:
                return self.hosts[found[0]["upstream"]]
            time.sleep(0.3)
        raise AssertionError(f"{number} is not in the gateway's log")

    def names(self, path: str, key: str = "plain") -> set[str]:
        """The models that a list has."""
        answer = self.call("GET", path, key)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        entries = found["data"] if path.startswith("/v1/") else found["models"]
        return {entry["id"] if path.startswith("/v1/") else entry["name"] for entry in entries}


@pytest.fixture(scope="module")
def mixed(bare_lab: LabUnderTest) -> Mixed:
    bare_lab.deploy(inventory=INVENTORY)
    return Mixed(bare_lab)


@pytest.fixture
def started(mixed: Mixed) -> Iterator[None]:
    """All as it was, after tests that stop something."""
    yield
    for host in ("gpu1", "gpu2"):
        mixed.lab.ssh(host, "systemctl start ollama")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(mixed.chat(model).status_code == 200 for model in (SMALL, LARGE)):
            return
        time.sleep(0.5)
    raise AssertionError("the hosts do not answer again")


def test_second_deploy_changes_nothing(mixed: Mixed) -> None:
    assert mixed.lab.deploy(inventory=INVENTORY) == {}


@pytest.mark.parametrize("path", DIALECTS)
def test_each_model_is_answered_by_the_host_that_has_it(mixed: Mixed, path: str) -> None:
    for model, host in OWNER.items():
        assert mixed.answered_by(mixed.chat(model, path=path)) == host
    assert mixed.lab.ssh("gpu1", "ls /var/lib/ollama/models/manifests/*/library/gpt-oss") == "20b"


@pytest.mark.parametrize(
    "name", ["GPT-OSS:20B", "library/gpt-oss:20b", "registry.ollama.ai/library/gpt-oss:20b"]
)
def test_names_as_clients_write_them(mixed: Mixed, name: str) -> None:
    assert mixed.answered_by(mixed.chat(name)) == "gpu1"
    assert mixed.answered_by(mixed.chat("GPT-4o:latest")) == "gpu2"
    shown = mixed.call("POST", "/api/show", json={"model": name})
    assert (shown.status_code, "capabilities" in shown.json()) == (200, True)


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize(
    ("key", "model"),
    [("plain", "lama:3"), ("small", LARGE), ("small", ALIAS), ("renamed", SMALL)],
)
def test_unknown_and_not_permitted(mixed: Mixed, path: str, key: str, model: str) -> None:
    """Nobody learns of a model that is not for the key: both are answered alike."""
    answer = mixed.chat(model, key, path)
    assert answer.status_code == 404, answer.text
    found = answer.json()
    if path == NATIVE:
        assert model in found["error"]
    else:
        assert model in found["error"]["message"]
    if path == MESSAGES:
        assert (found["type"], found["error"]["type"]) == ("error", "not_found_error")
    if path == CHAT:
        assert found["error"]["code"] == "model_not_found"
    assert mixed.call("GET", f"/v1/models/{model}", key).status_code == 404
    assert mixed.call("POST", "/api/show", key, json={"model": model}).status_code == 404


def test_lists_are_for_the_key(mixed: Mixed) -> None:
    for path in ("/v1/models", "/api/tags"):
        assert {SMALL, LARGE} <= mixed.names(path) <= {SMALL, LARGE, ALIAS, f"{ALIAS}:latest"}
        assert mixed.names(path, "small") == {SMALL}
        assert SMALL not in mixed.names(path, "renamed")
    mixed.chat(LARGE)
    assert LARGE in mixed.names("/api/ps")
    assert LARGE not in mixed.names("/api/ps", "small")
    one = mixed.call("GET", f"/v1/models/{SMALL}", "small")
    assert (one.status_code, one.json()["id"]) == (200, SMALL)
    assert mixed.answered_by(mixed.chat(ALIAS, "renamed")) == "gpu2"


def test_fields_that_act_on_everybody(mixed: Mixed) -> None:
    """Dropped and named by default, refused by name, or let through, as a key's `overrides` say."""
    for path in (NATIVE, "/api/generate"):
        asked = {"options": {"num_ctx": 1024, "num_predict": 2}, "keep_alive": 0}
        body: dict[str, Any] = {"model": SMALL, "stream": False, **asked}
        said: dict[str, Any] = {"prompt": "Hello", "messages": _talk(1)}
        said.pop("messages" if path == "/api/generate" else "prompt")
        answer = mixed.call("POST", path, json={**body, **said})
        assert answer.status_code == 200, answer.text
        ignored = set(answer.headers["X-Ignored-Fields"].split(", "))
        assert ignored == {"keep_alive", "options.num_ctx"}
        [loaded] = _loaded(mixed, "gpu1")
        assert loaded["context_length"] != 1024
        refused = mixed.call("POST", path, "strict", json={**body, **said})
        assert refused.status_code == 400
        assert "keep_alive" in refused.text or "num_ctx" in refused.text
        assert [item["context_length"] for item in _loaded(mixed, "gpu1")] != [1024]
    options = {"num_ctx": 1024}
    assert mixed.chat(SMALL, "tuner", NATIVE, options=options).status_code == 200
    assert [item["context_length"] for item in _loaded(mixed, "gpu1")] == [1024]


def test_a_quota_that_is_spent(mixed: Mixed) -> None:
    """... is spent after a reload, a restart and a crash of nginx, too."""
    statuses = []
    for _ in range(20):
        answer = mixed.chat(SMALL, "quota")
        statuses.append(answer.status_code)
        if answer.status_code != 200:
            break
        assert int(answer.headers["x-ratelimit-limit-tokens"]) == 30
    assert statuses[0] == 200
    assert statuses[-1] == 429, statuses
    time.sleep(6)  # what is counted is on the disk within five seconds
    kill = "systemctl kill -sKILL nginx; sleep 2; systemctl start nginx"
    for command in ("systemctl reload nginx", "systemctl restart nginx", kill):
        mixed.lab.ssh("edge", command)
        _until_it_listens(mixed)
        for path in DIALECTS:
            refused = mixed.chat(SMALL, "quota", path)
            assert refused.status_code == 429, f"{command}: {refused.text}"
            assert 1 <= int(refused.headers["Retry-After"]) <= 31 * 86400
            assert refused.headers["x-ratelimit-limit-tokens"] == "30"
            assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
            assert refused.headers["x-ratelimit-reset-tokens"]
            assert "error" in refused.json()
    # It is the key's, and nobody else's.
    assert mixed.chat(SMALL, "small").status_code == 200


def test_keys_are_hashed_on_the_gateway(mixed: Mixed) -> None:
    patterns = "\n".join(mixed.keys.values())
    found = mixed.lab.ssh(
        "edge",
        f"cat > /run/patterns <<'EOF'\n{patterns}\nEOF\n"
        "grep -rlF -f /run/patterns /etc /var/lib /var/log /usr/local; echo searched $?;"
        " grep -c . /run/patterns; rm /run/patterns",
    )
    assert found.split("\n") == ["searched 1", str(len(KEYS))]


def test_a_drained_host(mixed: Mixed, started: None) -> None:
    """Its models are answered 503, and those of the others as before."""
    refused = mixed.fleet("drain", INVENTORY, "gpu2", check=False)
    assert refused.returncode == 2
    assert f"edge would have no other host to send requests for {LARGE} to" in refused.stderr
    assert mixed.chat(LARGE).status_code == 200
    parts: list[bytes] = []
    began = threading.Event()

    def read() -> None:
        body = {"model": LARGE, "prompt": "Tell me a long story.", "options": {"num_predict": 200}}
        with mixed.call("POST", "/api/generate", json=body, stream=True) as answer:
            for line in answer.iter_lines():
                parts.append(line)
                began.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert began.wait(60)
    try:
        mixed.fleet("drain", INVENTORY, "gpu2", "--force")
        # What was in flight was waited for, as the gateway itself counts it.
        thread.join(1)
        assert json.loads(parts[-1])["done"] is True
        for model in (LARGE, ALIAS):
            answer = mixed.chat(model)
            assert answer.status_code == 503, answer.text
        assert mixed.answered_by(mixed.chat(SMALL)) == "gpu1"
        shown = json.loads(mixed.fleet("status", INVENTORY, "--json", check=False).stdout)
        [gpu2] = [item["facts"]["gateway"] for item in shown["hosts"] if item["name"] == "gpu2"]
        assert (gpu2["drained_by"], gpu2["in_flight"]) == ({"edge": True}, {"edge": 0})
    finally:
        mixed.fleet("undrain", INVENTORY, "gpu2")
    assert mixed.answered_by(mixed.chat(ALIAS)) == "gpu2"


def test_verify(mixed: Mixed) -> None:
    done = mixed.fleet("verify", INVENTORY, "edge", "--capability", "gateway", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every declared model is found through the gateway" in done.stdout


def test_a_host_that_is_alone_with_a_model_is_restarted_at_once(mixed: Mixed) -> None:
    """Nobody could answer for it meanwhile, and the deploy says for what."""
    result = mixed.lab.pyinfra("-y", "--data", "ollama_keep_alive=7m", inventory=INVENTORY)
    assert f"edge would have no other host to send requests for {LARGE} to" in result.stderr
    assert f"edge would have no other host to send requests for {SMALL} to" in result.stderr
    for model, host in OWNER.items():
        assert mixed.answered_by(mixed.chat(model)) == host


def test_a_dead_host(mixed: Mixed, started: None) -> None:
    mixed.lab.ssh("gpu2", "systemctl kill -sKILL ollama; systemctl stop ollama")
    time.sleep(3)
    began = time.monotonic()
    answer = mixed.chat(LARGE)
    assert answer.status_code in (502, 503), answer.text
    assert time.monotonic() - began < 2
    assert mixed.answered_by(mixed.chat(SMALL)) == "gpu1"
    # In its place, where that is declared.
    instead = json.dumps({"gateway_fallbacks": {LARGE: SMALL}})
    mixed.lab.deploy("--limit", "edge", inventory=INVENTORY, GATEWAY=instead)
    assert mixed.answered_by(mixed.chat(ALIAS)) == "gpu1"
    assert mixed.chat(ALIAS).json()["model"] == SMALL


def test_a_model_that_comes_to_another_host(mixed: Mixed) -> None:
    """... is answered by both, and may leave again; `auto` is each host's own choice."""
    large = {"name": LARGE, "memory": 1}
    models = json.dumps({"gpu1": [SMALL, large], "gpu2": [large, "auto"]})
    mixed.lab.deploy(inventory=INVENTORY, MODELS=models)
    hosts = {mixed.answered_by(mixed.chat(LARGE, messages=_talk(n))) for n in range(12)}
    assert hosts == {"gpu1", "gpu2"}
    assert mixed.answered_by(mixed.chat("auto")) == "gpu2"
    said = mixed.fleet("chat", INVENTORY, "What is the capital of France?", "--model", "auto",
                       MODELS=models)  # fmt: skip
    assert "first token after" in said.stdout
    mixed.fleet("drain", INVENTORY, "gpu2", "--force", MODELS=models)
    assert mixed.answered_by(mixed.chat(ALIAS)) == "gpu1"
    mixed.fleet("undrain", INVENTORY, "gpu2", MODELS=models)


@pytest.mark.slow
def test_a_backend(mixed: Mixed) -> None:
    """A server that is not ours is used, drained, shown, and the trouble of nobody else."""
    store = SecretStore(store_of(ROOT / INVENTORY, ROOT))
    store.replace("gateway_backend_far", FAR_KEY)
    backend = {
        "name": "far", "address": "http://127.0.0.1:8000", "key": "far", "models": {FAR: "real/far"}
    }  # fmt: skip
    declared = json.dumps({"gateway_backends": [backend]})
    result = mixed.lab.pyinfra("-y", "--limit", "edge", inventory=INVENTORY, GATEWAY=declared)
    assert "backend far gets no requests until it answers: no connection" in result.stderr
    assert mixed.chat(FAR).status_code == 503
    assert mixed.answered_by(mixed.chat(SMALL)) == "gpu1"
    shown = mixed.fleet("status", INVENTORY, "edge", check=False, GATEWAY=declared).stdout
    assert "backend far gets no requests: no connection" in shown
    _start_vllm(mixed)
    _until_far_answers(mixed)
    answer = mixed.chat(FAR)
    assert answer.json()["model"] == "served"
    refused = mixed.call("POST", NATIVE, json={"model": FAR, "messages": []})
    assert (refused.status_code, "/v1/chat/completions" in refused.json()["error"]) == (400, True)
    assert FAR in mixed.names("/v1/models")
    assert mixed.lab.deploy("--limit", "edge", inventory=INVENTORY, GATEWAY=declared) == {}
    verified = mixed.fleet(
        "verify", INVENTORY, "edge", "--capability", "gateway", check=False, GATEWAY=declared
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    mixed.fleet("drain", INVENTORY, "far", "--force", GATEWAY=declared)
    assert mixed.chat(FAR).status_code == 503
    mixed.fleet("undrain", INVENTORY, "far", GATEWAY=declared)
    _until_far_answers(mixed)
    used = mixed.fleet("usage", INVENTORY, "--by", "host,model", GATEWAY=declared).stdout
    assert "far" in used
    found = mixed.lab.ssh(
        "edge", f"grep -rl {FAR_KEY} /etc /var/log /var/lib /run 2>/dev/null || true"
    )
    assert found == "/etc/llm-fleet/gateway/backends.conf"
    # Gone with its key; a crash of nginx leaves no socket that would keep it from starting.
    mixed.lab.ssh("edge", "systemctl kill -sKILL nginx; sleep 1; systemctl start nginx")
    mixed.lab.deploy("--limit", "edge", inventory=INVENTORY)
    assert mixed.lab.ssh("edge", "ls /etc/llm-fleet/gateway | grep -c backend || true") == "0"
    assert mixed.chat(FAR).status_code == 404


def _start_vllm(mixed: Mixed) -> None:
    """The stand-in for vLLM, on the gateway's own host."""
    with io.BytesIO() as packed:
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path in (ROOT / "lab/vllm").glob("*.py"):
                archive.add(path, f"vllm/{path.name}")
        text = base64.b64encode(packed.getvalue()).decode()
    mixed.lab.ssh(
        "edge",
        f"mkdir -p /opt/far/model; echo {text} | base64 -d | tar -xzC /opt/far; "
        "echo '{}' > /opt/far/model/config.json; "
        "systemd-run --quiet --collect --unit far --working-directory /opt/far "
        f"--setenv=VLLM_API_KEY={FAR_KEY} python3 -m vllm.api_server --host 127.0.0.1 "
        "--model /opt/far/model --served-model-name served real/far",
    )


def _until_far_answers(mixed: Mixed) -> None:
    end = time.monotonic() + 60
    while (answer := mixed.chat(FAR)).status_code != 200:
        if time.monotonic() > end:
            seen = mixed.lab.ssh(
                "edge",
                "journalctl -q -u far -n 20; tail -5 /var/log/llm-fleet/error.log; "
                "curl -s --unix-socket /run/llm-fleet-status.sock http://x/servers",
                check=False,
            )
            raise AssertionError(f"{answer.status_code} {answer.text}\n{seen}")
        time.sleep(0.3)


def _talk(number: int) -> list[dict[str, str]]:
    """A conversation that no other begins like."""
    return [{"role": "user", "content": f"Number {number}: hello"}]


def _loaded(mixed: Mixed, host: str) -> list[dict[str, Any]]:
    address = mixed.lab.state["hosts"][host]["address"]
    text = mixed.lab.ssh(host, f"curl -fsS http://{address}:11434/api/ps")
    models: list[dict[str, Any]] = json.loads(text)["models"]
    return models


def _until_it_listens(mixed: Mixed) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if mixed.call("GET", "/v1/models").status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError("the gateway does not listen")

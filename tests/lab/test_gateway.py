"""The gateway as its clients, its operators and strangers meet it, on real hosts."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
import requests

from fleet.declare.stores import store_of
from fleet.gateway.paths import GATEWAY_STATUS_SOCKET
from tests.lab.conftest import BIN, ROOT, LabUnderTest

INVENTORY = Path("tests/lab/inventories/production.py")
GPUS = ("gpu1", "gpu2", "gpu3")
MODEL = "gpt-oss:20b"
# Of the recording backend: 75 parts in 15 seconds, longer than any change of the gateway takes.
_STORY = {"model": MODEL, "prompt": "drip 75"}
# Longer than a deploy takes beside three other labs.
_LONG_STORY = {"model": MODEL, "prompt": "drip 225"}

# What a host does that has lost its power: it does not even refuse.
_SILENCE = (
    "nft 'add table inet hole; add chain inet hole in { type filter hook input priority -300; };"
    " add rule inet hole in tcp dport 11434 drop'"
)


class GatewayUnderTest:
    """The gateway of a lab with three GPU hosts, and its keys."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.address = lab.state["hosts"]["edge"]["address"]
        self.url = f"https://{self.address}:8434"
        self.ca = ROOT / ".lab" / lab.id / "fleet-ca.pem"
        self.ca.write_text(self.fleet("ca", INVENTORY).stdout)

    def fleet(self, *args: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`fleet ARGS`, as an operator runs it."""
        result = subprocess.run(
            [str(part) for part in (BIN / "fleet", *args)],
            cwd=ROOT,
            env={"LLM_FLEET_LAB_ID": self.lab.id, "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stderr
        return result

    def deploy(self, **settings: Any) -> dict[str, list[str]]:
        """Converge the gateway, with `settings` of it changed."""
        return self.lab.deploy("--limit", "edge", inventory=INVENTORY, GATEWAY=json.dumps(settings))

    def key(self, name: str) -> str:
        """The value of the key `name`."""
        return self.fleet("key", "show", INVENTORY, name).stdout.strip()

    def call(self, method: str, path: str, key: str = "", **arguments: Any) -> requests.Response:
        """A request with the key's value, if there is one."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= arguments.pop("headers", {})
        return requests.request(
            method, f"{self.url}{path}", headers=headers, verify=str(self.ca), timeout=60,
            **arguments,
        )  # fmt: skip

    def log(self) -> list[dict[str, Any]]:
        """The access log's entries."""
        time.sleep(1.5)  # it is written once a second
        lines = self.lab.ssh("edge", "cat /var/log/llm-fleet/gateway.log").splitlines()
        return [json.loads(line) for line in lines]

    @contextmanager
    def story(self, key: str, told: Any = _STORY) -> Iterator[list[dict[str, Any]]]:
        """A streamed answer that has begun; its parts, all of them when the block has ended."""
        parts: list[dict[str, Any]] = []
        failures: list[Exception] = []
        begun = threading.Event()

        def read() -> None:
            try:
                with self.call("POST", "/api/generate", key, json=told, stream=True) as answer:
                    for line in answer.iter_lines():
                        parts.append(json.loads(line))
                        begun.set()
            except Exception as error:
                failures.append(error)
            begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(60)
        yield parts
        thread.join(90)
        assert failures == []
        assert parts[-1].get("done") is True, parts[-1:]


@pytest.fixture(scope="module")
def gateway(gateway_lab: LabUnderTest) -> GatewayUnderTest:
    (store_of(ROOT / INVENTORY, ROOT) / "gateway_key_tuner.previous").unlink(missing_ok=True)
    gateway_lab.deploy(inventory=INVENTORY)
    return GatewayUnderTest(gateway_lab)


@pytest.fixture(scope="module")
def keys(gateway: GatewayUnderTest) -> dict[str, str]:
    """Name to value."""
    names = ("plain", "strict", "ops", "tuner", "slow", "narrow", "elsewhere", "past")
    return {name: gateway.key(name) for name in names}


@pytest.fixture
def backend(gateway: GatewayUnderTest) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The recording backend in the place of all Ollamas; what it has received since."""
    program = (ROOT / "tests" / "lab" / "backend.py").read_text()
    for gpu in GPUS:
        address = gateway.lab.state["hosts"][gpu]["address"]
        gateway.lab.ssh(gpu, f"rm -f /run/seen; cat > /run/backend.py <<'EOF'\n{program}\nEOF")
        gateway.lab.ssh(
            gpu,
            "systemctl stop ollama; systemd-run --quiet --unit backend -p Restart=always"
            f" python3 /run/backend.py {address} 11434 /run/seen; "
            f"until curl -fs -o /dev/null http://{address}:11434/; do sleep 0.1; done",
        )
        gateway.lab.ssh(gpu, "rm /run/seen")

    def seen() -> list[dict[str, Any]]:
        texts = [gateway.lab.ssh(gpu, "cat /run/seen 2>/dev/null; true") for gpu in GPUS]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    yield seen
    for gpu in GPUS:
        gateway.lab.ssh(gpu, "systemctl stop backend; systemctl start ollama")
    _until_answers(gateway, 200)


def _until_answers(gateway: GatewayUnderTest, status: int) -> None:
    deadline = time.monotonic() + 40
    key = gateway.key("plain")
    while (answer := gateway.call("GET", "/v1/models", key)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)


def test_second_deploy_changes_nothing(gateway: GatewayUnderTest) -> None:
    assert gateway.deploy() == {}


def test_everything_declared_holds(gateway: GatewayUnderTest) -> None:
    assert gateway.lab.failing(inventory=INVENTORY) == {}


class TestWhoMayWhat:
    @pytest.mark.parametrize(
        ("method", "path", "statuses"),
        [
            # path: with the key of a client, and of an operator
            ("GET", "/v1/models", (200, 200)),
            ("GET", f"/v1/models/{MODEL}", (200, 200)),
            ("GET", "/api/tags", (200, 200)),
            ("POST", "/api/tags", (405, 405)),
            ("GET", "/v1/chat/completions", (405, 405)),
            ("DELETE", "/api/chat", (405, 405)),
            ("POST", "/api/show", (400, 400)),
            ("GET", "/api/ps", (200, 200)),
            ("POST", "/api/push", (404, 404)),
            ("GET", "/hosts/gpu1/api/ps", (403, 200)),
            ("GET", "/hosts/gpu1/api/pull", (403, 405)),
            ("POST", "/hosts/gpu1/api/push", (404, 404)),
            ("POST", "/hosts/gpu1/api/chat", (404, 404)),
            ("GET", "/hosts/gpu9/api/ps", (403, 404)),
            ("GET", "/hosts/gpu1/../gpu2/api/push", (404, 404)),
        ],
    )
    def test_paths(
        self,
        gateway: GatewayUnderTest,
        keys: dict[str, str],
        method: str,
        path: str,
        statuses: tuple[int, int],
    ) -> None:
        seen = [gateway.call(method, path, keys[name]).status_code for name in ("plain", "ops")]
        assert tuple(seen) == statuses
        assert gateway.call(method, path).status_code == 401

    def test_an_operator_manages_one_host(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        """create, show and delete, with the public client, on the host in the path only."""
        client = partial(
            ollama.Client,
            headers={"Authorization": f"Bearer {keys['ops']}"},
            verify=_trust(gateway),
        )
        one, other = (client(host=f"{gateway.url}/hosts/{gpu}") for gpu in ("gpu2", "gpu3"))
        one.create(model="copy", from_=MODEL)
        assert {model.model for model in one.list().models} == {MODEL, "copy:latest"}
        assert {model.model for model in other.list().models} == {MODEL}
        assert one.show("copy").details is not None
        one.delete("copy")
        assert {model.model for model in one.list().models} == {MODEL}
        for used in (one, other):
            used._client.close()

    def test_networks_of_a_key(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        """The key works from its network, which the foreign host is in, and from no other."""
        foreign = gateway.lab.state["foreign"]["address"]
        answer = gateway.call("GET", "/v1/models", keys["elsewhere"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_allowed")
        gateway.deploy(gateway_keys=[{"name": "elsewhere", "allow_from": [f"{foreign}/32"]}])
        assert gateway.call("GET", "/v1/models", keys["elsewhere"]).status_code == 403
        result = gateway.lab.command(
            "exec-foreign", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert",
            str(gateway.ca), "-H", f"x-api-key: {keys['elsewhere']}", f"{gateway.url}/v1/models",
        )  # fmt: skip
        assert result.stdout == "200"
        gateway.deploy()

    @pytest.mark.parametrize(
        "body",
        [
            {"keep_alive": 0},
            {"KEEP_ALIVE": 0},
            {"\u212aeep_alive": 0},
            '{"model":"gpt-oss:20b","keep\\u005falive":0}',
            {"options": {"num_ctx": 512}},
            {"options": {"draft_num_predict": 1}},
            {"\u017fhift": False},
            {"template": '{{ define "a" }}{{ end }}'},
        ],
        ids=[
            "keep_alive",
            "upper case",
            "kelvin",
            "escaped",
            "num_ctx",
            "draft",
            "long s",
            "template",
        ],
    )
    def test_a_client_cannot_unload_a_model(
        self, gateway: GatewayUnderTest, keys: dict[str, str], body: Any
    ) -> None:
        """... nor reload it or have it execute something, however it writes it; it is told."""
        data = body if isinstance(body, str) else json.dumps(
            {"model": MODEL, "stream": False, **body}, ensure_ascii=False
        )  # fmt: skip
        answer = gateway.call("POST", "/api/generate", keys["strict"], data=data.encode())
        assert answer.status_code == 400
        assert re.match(r"'.+' is (not for this key|no field)", answer.json()["error"])
        before = self._loaded(gateway, keys)
        answer = gateway.call("POST", "/api/generate", keys["plain"], data=data.encode())
        assert (answer.status_code, bool(answer.headers["X-Ignored-Fields"])) == (200, True)
        assert self._loaded(gateway, keys).items() >= before.items()

    def _loaded(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> dict[str, Any]:
        """The context with which each host has loaded its model, where it has."""
        answers = {
            gpu: gateway.call("GET", f"/hosts/{gpu}/api/ps", keys["ops"]).json() for gpu in GPUS
        }
        return {
            gpu: [(model["name"], model["context_length"]) for model in answer["models"]]
            for gpu, answer in answers.items()
            if answer["models"]
        }

    def test_words_in_a_prompt_are_no_override(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        prompt = '{"keep_alive": 0, "num_ctx": 1} \u00e9": "keep_alive":'
        for ascii_only in (True, False):
            body = {"model": MODEL, "prompt": prompt, "options": {"num_predict": 1}}
            data = json.dumps(body, ensure_ascii=ascii_only).encode()
            answer = gateway.call("POST", "/api/generate", keys["plain"], data=data)
            assert answer.status_code == 200, answer.text
        large = {"model": "no-such-model", "prompt": 'x\\n"\u00e9 ' * 2_000_000}
        answer = gateway.call("POST", "/api/generate", keys["plain"], data=json.dumps(large))
        assert answer.status_code == 404, answer.text
        answer = gateway.call(
            "POST", "/api/generate", keys["plain"], data=iter([b'{"model":"no-such', b'-model"}'])
        )
        assert answer.status_code == 404, "sent in chunks, without a length"

    def test_a_key_with_overrides_may(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        for name in ("tuner", "ops"):
            body = {"model": MODEL, "keep_alive": 60, "stream": False}
            assert gateway.call("POST", "/api/generate", keys[name], json=body).status_code == 200


class TestHowOften:
    def test_rate(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        """30/m with a burst of 2: three at once, then one each two seconds; others are free."""
        answers = [gateway.call("GET", "/v1/models", keys["slow"]) for _ in range(6)]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert answers[-1].status_code == 429
        assert answers[-1].headers["Retry-After"] == "2"
        assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert gateway.call("GET", "/v1/models", keys["plain"]).status_code == 200
        time.sleep(2.1)
        assert gateway.call("GET", "/v1/models", keys["slow"]).status_code == 200

    def test_at_once(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend: object
    ) -> None:
        with gateway.story(keys["narrow"]):
            assert gateway.call("GET", "/v1/models", keys["narrow"]).status_code == 429
            assert gateway.call("GET", "/v1/models", keys["plain"]).status_code == 200
        assert gateway.call("GET", "/v1/models", keys["narrow"]).status_code == 200


class TestUntilWhen:
    def test_a_key_ends_without_a_deploy(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        assert gateway.call("GET", "/v1/models", keys["past"]).status_code == 401
        end = datetime.now(UTC) + timedelta(seconds=25)
        gateway.deploy(gateway_keys=[{"name": "past", "expires": end.isoformat()}, "plain"])
        statuses = set()
        while datetime.now(UTC) < end - timedelta(seconds=1):
            statuses.add(gateway.call("GET", "/v1/models", keys["past"]).status_code)
            time.sleep(0.5)
        assert statuses == {200}, "the deploy took longer than the key was to live" * (not statuses)
        time.sleep(max(0, (end - datetime.now(UTC)).total_seconds()) + 1)
        assert gateway.call("GET", "/v1/models", keys["past"]).status_code == 401
        assert gateway.call("GET", "/v1/models", keys["plain"]).status_code == 200
        gateway.deploy()

    def test_rotation(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend: object
    ) -> None:
        """Both values until the end of the overlap; the change cuts no stream; then the new one."""
        with gateway.story(keys["tuner"]) as parts:
            result = gateway.fleet("key", "rotate", INVENTORY, "tuner", "--overlap", "45s")
            new = result.stdout.strip()
            assert re.fullmatch(r"sk-[0-9a-f]{64}", new)
            assert new != keys["tuner"]
            before = len(parts)
            changed = gateway.deploy()
            assert set(changed) == {
                "Gateway | Install the configuration",
                "Gateway | Run nginx as declared",
            }
            for value in (new, keys["tuner"]):
                assert gateway.call("GET", "/v1/models", value).status_code == 200
        assert len(parts) > before, "the stream had ended before the reload"
        deadline = time.monotonic() + 60
        while gateway.call("GET", "/v1/models", keys["tuner"]).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(1)
        keys["tuner"] = gateway.key("tuner")
        gateway.deploy()

    def test_revoked_key(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend: object
    ) -> None:
        """Gone by a reload, and the answer that its owner is reading goes on to its end."""
        with gateway.story(keys["narrow"], _LONG_STORY) as parts:
            changed = gateway.deploy(gateway_keys=["plain"])
            assert "Gateway | Run nginx as declared" in changed
            before = len(parts)
            assert gateway.call("GET", "/v1/models", keys["narrow"]).status_code == 401
        assert len(parts) > before, "the stream had ended before the reload"
        gateway.deploy()


class TestClients:
    def test_openai(self, gateway: GatewayUnderTest, keys: dict[str, str], backend) -> None:
        client = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=keys["plain"],
            http_client=openai.DefaultHttpxClient(verify=_trust(gateway)),
        )  # fmt: skip
        tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
        chat = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "?"}], tools=[tool]
        )
        assert chat.choices[0].message.tool_calls[0].function.name == "weather"
        assert client.responses.create(model=MODEL, input="?").output_text == "Paris"
        assert [tool] in [json.loads(entry["body"]).get("tools") for entry in backend()]
        client.close()

    def test_anthropic(self, gateway: GatewayUnderTest, keys: dict[str, str], backend) -> None:
        client = anthropic.Anthropic(
            base_url=gateway.url, api_key=keys["plain"],
            http_client=anthropic.DefaultHttpxClient(verify=_trust(gateway)),
        )  # fmt: skip
        request = {
            "model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "?"}],
        }  # fmt: skip
        assert client.messages.create(**request).content[0].text == "Paris"
        with client.messages.stream(**request) as stream:
            assert "".join(stream.text_stream) == "Paris"
        [seen, *_] = backend()
        assert seen["headers"]["host"] == "localhost"
        assert {"x-api-key", "authorization", "x-fleet-pass"}.isdisjoint(seen["headers"])
        assert (
            client.messages.count_tokens(model=MODEL, messages=request["messages"]).input_tokens
            is None
        )  # the recording backend answers everything below with a message
        with_bearer = anthropic.Anthropic(
            base_url=gateway.url, api_key=None, auth_token=keys["plain"],
            http_client=anthropic.DefaultHttpxClient(verify=_trust(gateway)),
        )  # fmt: skip
        assert with_bearer.messages.create(**request).content[0].text == "Paris"
        with_bearer.close()
        paths = [entry["path"] for entry in backend()]
        assert "/v1/messages/count_tokens" in [path.split("?")[0] for path in paths]
        with pytest.raises(anthropic.AuthenticationError, match="a valid API key is needed"):
            client.with_options(api_key="sk-wrong").messages.create(**request)
        client.close()

    def test_ollama_and_embeddings(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        client = ollama.Client(
            host=gateway.url, headers={"Authorization": f"Bearer {keys['plain']}"},
            verify=_trust(gateway),
        )  # fmt: skip
        assert [model.model for model in client.list().models] == [MODEL]
        parts = list(
            client.chat(MODEL, [{"role": "user", "content": "Hi"}], stream=True,
                        options={"num_predict": 8})
        )  # fmt: skip
        assert parts[-1].done
        # Dropped, and named in a header: the client goes on.
        assert client.generate(MODEL, "Hi", keep_alive=0, options={"num_ctx": 512}).done
        with pytest.raises(ollama.ResponseError, match="does not support embeddings"):
            client.embed(MODEL, "Paris")
        over_openai = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=keys["plain"],
            http_client=openai.DefaultHttpxClient(verify=_trust(gateway)),
        )  # fmt: skip
        with pytest.raises(openai.InternalServerError, match="does not support embeddings"):
            over_openai.with_options(max_retries=0).embeddings.create(model=MODEL, input="Paris")
        over_openai.close()
        client._client.close()

    def test_browser(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        """A declared origin is let in, before it has a key too; another one is told nothing."""
        ours = {"Origin": "https://chat.example.com"}
        asked = gateway.call("OPTIONS", "/v1/chat/completions", headers=ours)
        assert asked.status_code == 204
        assert asked.headers["Access-Control-Allow-Origin"] == ours["Origin"]
        assert "authorization" in asked.headers["Access-Control-Allow-Headers"]
        for key, status in ((keys["plain"], 200), ("", 401)):
            answer = gateway.call("GET", "/v1/models", key, headers=ours)
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == ours["Origin"]
            assert "X-Ignored-Fields" in answer.headers["Access-Control-Expose-Headers"]
        other = {"Origin": "https://chat.example.com.evil.test"}
        assert gateway.call("OPTIONS", "/v1/models", headers=other).status_code == 401
        answer = gateway.call("GET", "/v1/models", keys["plain"], headers=other)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Access-Control-Expose-Headers" not in answer.headers


class TestErrors:
    def test_too_large(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        answer = gateway.call("POST", "/v1/completions", keys["plain"], data=b"x" * (65 << 20))
        assert answer.status_code == 413
        assert "64 MiB" in answer.json()["error"]["message"]

    def test_too_slow_and_unreachable(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend
    ) -> None:
        """504 and 502 of nginx itself, in the shape of OpenAI's errors, and when to come back."""
        gateway.deploy(gateway_read_timeout="2s")
        body = {"model": MODEL, "prompt": "sleep 4"}
        answer = gateway.call("POST", "/v1/completions", keys["plain"], json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (504, "5")
        assert answer.json()["error"]["type"] == "timeout_error"
        sent = [entry for entry in backend() if "sleep 4" in entry["body"]]
        for gpu in GPUS:
            gateway.lab.ssh(gpu, "systemctl stop backend")
        answer = gateway.call("POST", "/v1/completions", keys["plain"], json=body)
        # By when it is known that they are gone, there is nobody to be asked.
        assert answer.status_code in (502, 503)
        assert answer.headers["Retry-After"] == "5"
        try:
            for gpu in GPUS:
                gateway.lab.ssh(gpu, _SILENCE)
            answer = gateway.call("POST", "/v1/completions", keys["plain"], json=body)
        finally:
            for gpu in GPUS:
                gateway.lab.ssh(gpu, "nft delete table inet hole")
        assert answer.status_code in (502, 503), "a host that nobody reaches is not too slow"
        gateway.deploy()
        assert len(sent) == 1, "a request that was only slow was sent twice"

    def test_what_nginx_does_not_load(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        """`nginx -t` runs no program, and the workers of before go on: nobody takes it for done."""
        library = gateway.lab.ssh("edge", "ls /usr/lib/*/lua/5.1/cjson.so")
        gateway.lab.ssh("edge", f"mv {library} {library}.away")
        try:
            deploy = gateway.lab.pyinfra(
                "-y", "--limit", "edge", inventory=INVENTORY, check=False,
                GATEWAY=json.dumps({"gateway_read_timeout": "3s"}),
            )  # fmt: skip
            drained = gateway.fleet("drain", INVENTORY, "gpu1", check=False)
            assert gateway.call("GET", "/v1/models", keys["plain"]).status_code == 200
        finally:
            gateway.lab.ssh("edge", f"mv {library}.away {library}")
        for result in (deploy, drained):
            assert result.returncode != 0
            told = r"nginx.service runs on with the configuration of before: .*'cjson.*' not found"
            assert re.search(told, result.stderr)
        assert "Gateway | Run nginx as declared" in gateway.deploy()
        gateway.fleet("undrain", INVENTORY, "gpu1", "--cold")
        assert gateway.deploy() == {}


def _ask(gateway: GatewayUnderTest, key: str, at: float) -> tuple[str, float, int]:
    """A request at that time: its number, when it began, and the status of its answer."""
    time.sleep(max(0, at - time.time()))
    began = time.time()
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{at}"}]}
    answer = gateway.call("POST", "/v1/chat/completions", key, json=body)
    return answer.headers["X-Request-Id"], began, answer.status_code


def _every(step: float, seconds: float) -> Iterator[float]:
    """Each `step` from now on, for so many seconds."""
    begin = time.time()
    for turn in range(round(seconds / step)):
        while time.time() < begin + turn * step - 0.2:
            time.sleep(0.01)
        yield begin + turn * step


def _done(asked: list[Any]) -> list[Any]:
    return [one.result() for one in asked]


def _until_asked(gateway: GatewayUnderTest, key: str, address: str) -> None:
    """Until a server that has just come back gets requests, and its share of them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for _ in range(6):
            _ask(gateway, key, time.time())
        if sum(address in entry["upstream"] for entry in gateway.log()[-6:]) >= 2:
            return
    raise AssertionError(f"{address} gets no requests")


class TestManyHosts:
    @pytest.mark.parametrize("death", ["process", "power"])
    def test_a_dead_host_is_asked_for_two_seconds_at_most(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend, death: str
    ) -> None:
        """Killed, or without power: then it does not even refuse. No request fails by it."""
        address = gateway.lab.state["hosts"]["gpu2"]["address"]
        kill = "systemctl kill -s KILL backend; systemctl stop backend 2>/dev/null; true"
        _until_asked(gateway, keys["plain"], address)
        with ThreadPoolExecutor(40) as pool:
            asked = [pool.submit(_ask, gateway, keys["plain"], at) for at in _every(0.05, 4)]
            try:
                gateway.lab.ssh("gpu2", kill if death == "process" else _SILENCE)
                died = time.time()
                asked += [pool.submit(_ask, gateway, keys["plain"], at) for at in _every(0.05, 6)]
                answers = {number: (began, status) for number, began, status in _done(asked)}
            finally:
                gateway.lab.ssh("gpu2", "nft delete table inet hole 2>/dev/null; true")
        entries = {item["id"]: item for item in gateway.log() if item["id"] in answers}
        met = [answers[item["id"]][0] for item in entries.values() if address in item["upstream"]]
        later = sorted(began - died for began in met if began > died)
        failed = [began - died for began, status in answers.values() if status != 200]
        assert max(later, default=0) < 2
        assert failed == [], failed
        assert len([began for began in met if began < died]) > 5, "it was not asked before"

    def test_a_request_that_has_begun_to_answer_is_not_repeated(
        self, gateway: GatewayUnderTest, keys: dict[str, str], backend
    ) -> None:
        """The host dies in the middle of a stream: the client sees the end, and nothing twice."""
        with gateway.call(
            "POST", "/api/generate", keys["plain"], json=_STORY, stream=True
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            for gpu in GPUS:
                gateway.lab.ssh(gpu, "systemctl kill -s KILL backend")
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                list(lines)
        assert len([entry for entry in backend() if "drip" in entry["body"]]) == 1
        _until_answers(gateway, 200)

    def test_drain(self, gateway: GatewayUnderTest, keys: dict[str, str], backend: object) -> None:
        """No request is cut off, none comes anew, and it lasts until it is undone."""
        for gpu in GPUS:
            _until_asked(gateway, keys["plain"], gateway.lab.state["hosts"][gpu]["address"])
        with ExitStack() as stories:
            # Each is a conversation of its own, and goes where that is meant to go.
            for number in range(150, 170):
                told = {**_STORY, "prompt": f"drip {number}"}
                parts = stories.enter_context(gateway.story(keys["plain"], told))
                if _busy(gateway) == set(GPUS):
                    break
            assert _busy(gateway) == set(GPUS), "the requests were not spread"
            began = time.monotonic()
            result = gateway.fleet("drain", INVENTORY, "gpu1")
            took = time.monotonic() - began
            assert "gpu1 is drained" in result.stdout
            assert re.search(r"gpu1: [1-9]\d* requests in flight", result.stderr)
            assert took > 2
            assert len(parts) > 1
        assert gateway.deploy() == {}
        gateway.lab.ssh("edge", "systemctl restart nginx")
        asked = {_ask(gateway, keys["plain"], time.time())[0] for _ in range(20)}
        hosts = gateway.lab.state["hosts"]
        upstreams = {item["upstream"] for item in gateway.log() if item["id"] in asked}
        assert upstreams == {f"{hosts[gpu]['address']}:11434" for gpu in ("gpu2", "gpu3")}
        refused = gateway.fleet("drain", INVENTORY, "gpu9", check=False)
        assert "there are gpu1, gpu2, gpu3" in refused.stderr
        gateway.fleet("drain", INVENTORY, "gpu2")
        refused = gateway.fleet("drain", INVENTORY, "gpu3", check=False)
        assert "no other host to send requests for gpt-oss:20b to" in refused.stderr
        gateway.lab.ssh("gpu1", "systemctl stop backend")
        refused = gateway.fleet("undrain", INVENTORY, "gpu1", check=False)
        assert refused.returncode == 2, "a host that does not answer got requests again"
        gateway.lab.ssh("gpu1", "systemctl start ollama")
        gateway.fleet("undrain", INVENTORY, "gpu1")
        gateway.fleet("undrain", INVENTORY, "gpu2", "--cold")
        assert gateway.lab.ssh("edge", "grep -c gpu /etc/llm-fleet/gateway/idle; true") == "0"
        assert gateway.deploy() == {}


def _busy(gateway: GatewayUnderTest) -> set[str]:
    """GPU hosts that the gateway has a request at."""
    socket = f"--unix-socket {GATEWAY_STATUS_SOCKET}"
    told = json.loads(gateway.lab.ssh("edge", f"curl -s {socket} http://x/in-flight"))
    return {name for name, number in told.items() if number}


class TestTraces:
    def test_log(self, gateway: GatewayUnderTest, keys: dict[str, str]) -> None:
        """What is needed is there; neither keys nor prompts are, not even from a path."""
        secret = "a prompt that nobody else reads"
        body = {"model": MODEL, "messages": [{"role": "user", "content": secret}], "max_tokens": 2}
        answer = gateway.call("POST", "/v1/chat/completions", keys["plain"], json=body)
        gateway.call("GET", f"/v1/models/{keys['plain']}", keys["plain"])
        gateway.call("GET", f"/{keys['plain']}?key={keys['plain']}")
        entries = gateway.log()
        [entry] = [item for item in entries if item["id"] == answer.headers["X-Request-Id"]]
        assert (entry["key"], entry["path"]) == ("plain", "/v1/chat/completions")
        assert (entry["model"], entry["status"]) == (MODEL, 200)
        assert entry["upstream"].endswith(":11434")
        # nginx rounds each to a millisecond of its own clock.
        assert 0 < float(entry["first_byte"]) <= entry["duration"] + 0.002
        assert entry["bytes"] == len(answer.content)
        logs = "cat /var/log/nginx/* /var/log/llm-fleet/*; journalctl -o cat -u nginx"
        everything = gateway.lab.ssh("edge", logs)
        assert secret not in everything
        for value in keys.values():
            assert value not in everything
        assert gateway.lab.ssh("edge", "stat -c %a /var/log/llm-fleet/gateway.log") == "640"

    def test_metrics_survive_rotation_and_are_private(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        def count() -> int:
            text = gateway.lab.ssh("edge", f"curl -fsS http://{gateway.address}:9145/metrics")
            pattern = r'requests_total\{key="plain",path="/api/version",status="200"\} (\d+)'
            match = re.search(pattern, text)
            return int(match[1]) if match else 0

        for number in (1, 2):
            before = count()
            gateway.call("GET", "/api/version", keys["plain"])
            time.sleep(2)
            assert count() == before + 1, f"rotation {number - 1}"
            gateway.lab.ssh("edge", "logrotate -f /etc/logrotate.d/nginx")
        for port in (9100, 9113, 9145):
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.get(f"http://{gateway.address}:{port}/metrics", timeout=1)
            gateway.lab.ssh(
                "edge", f"curl -fsS -o /dev/null http://{gateway.address}:{port}/metrics"
            )

    def test_kept_secrets(self, gateway: GatewayUnderTest) -> None:
        modes = gateway.lab.ssh(
            "edge", "cd /etc/llm-fleet/gateway; stat -c '%a %U' declared.lua tls.key ."
        )
        assert modes.splitlines() == ["600 root", "600 root", "700 root"]


class TestWithoutAKey:
    """What a caller may cost that has none: from a host that is not of the fleet."""

    def test_half_requests_leave_the_port_to_others(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        """Many more than one address may have: the others of it are refused, nobody else is."""
        program = (
            "import socket, sys, time\n"
            "kept, refused = [], 0\n"
            "for number in range(1500):\n"
            "    try:\n"
            "        one = socket.create_connection((sys.argv[1], 8434), 2)\n"
            "        one.sendall(b'GET /x HTTP/1.1\\r\\nHost'); kept.append(one)\n"
            "    except OSError: refused += 1\n"
            "print(len(kept), refused, flush=True); time.sleep(13)\n"
            "def is_open(one):\n"
            "    one.setblocking(False)\n"
            "    try: return len(one.recv(100)) > 90\n"
            "    except BlockingIOError: return True\n"
            "    except OSError: return False\n"
            "print(sum(map(is_open, kept)))\n"
        )
        with subprocess.Popen(
            [BIN / "lab", "exec-foreign", "python3", "-c", program, gateway.address],
            env={"LLM_FLEET_LAB_ID": gateway.lab.id, "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE, text=True,
        ) as attacker:  # fmt: skip
            time.sleep(6)
            # The machine of the tests is another address than the attacker's.
            assert gateway.call("GET", "/api/version", keys["plain"]).status_code == 200
            said, _ = attacker.communicate(timeout=60)
        kept, refused, later = map(int, said.split())
        assert (kept, refused) == (512, 988)
        assert later == 0, "half a request is kept waiting for longer than ten seconds"

    def test_refused_requests_fill_no_log(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        """Long paths and methods are cut, and of many refusals a minute the first are enough."""
        program = (
            "import http.client, ssl, sys\n"
            "def ask(method, path, **headers):\n"
            "    one.request(method, path, headers=headers); answer = one.getresponse()\n"
            "    answer.read(); return answer.status\n"
            "context = ssl._create_unverified_context()\n"
            "one = http.client.HTTPSConnection(sys.argv[1], 8434, context=context)\n"
            "print(sorted({ask('A' * 700, '/' + 'p' * 7000) for _ in range(20)}))\n"
            "print([ask('GET', '/v1/models') for _ in range(500)].count(429))\n"
            "print(ask('GET', '/v1/models', **{'x-api-key': sys.argv[2]}))\n"
        )
        before = len(gateway.log())
        said = gateway.lab.command(
            "exec-foreign", "python3", "-c", program, gateway.address, keys["plain"]
        ).stdout.splitlines()
        time.sleep(2)
        entries = gateway.log()[before:]
        assert said[0] == "[401]"
        # The twenty before are of the same minute.
        assert int(said[1]) == 500 - 40
        assert said[2] == "200", "a valid key of the same address is served"
        assert len(entries) <= 63
        assert max(len(json.dumps(entry)) for entry in entries) < 700

    def test_logs_are_rotated_by_size_and_metrics_go_on(
        self, gateway: GatewayUnderTest, keys: dict[str, str]
    ) -> None:
        """... by a unit of its own, every minute; nobody of the group adm reads them."""
        shown = "systemctl show --value -p LastTriggerUSec llm-fleet-gateway-logs.timer"
        assert gateway.lab.ssh("edge", shown)
        gateway.lab.ssh("edge", "truncate -s 65M /var/log/llm-fleet/error.log")
        gateway.lab.ssh("edge", "systemctl start llm-fleet-gateway-logs.service")
        sizes = gateway.lab.ssh("edge", "stat -c '%s %n' /var/log/llm-fleet/error.log*")
        assert "\n68157440 /var/log/llm-fleet/error.log.1" in f"\n{sizes}"
        assert sizes.startswith("0 ")
        gateway.call("GET", "/api/version", keys["plain"])
        time.sleep(1.5)
        assert gateway.log()[-1]["path"] == "/api/version"
        groups = "ps -o supgrp= -p $(systemctl show --value -p MainPID llm-fleet-gateway-metrics)"
        assert "adm" not in gateway.lab.ssh("edge", groups)


class TestTls:
    def test_redirects(self, gateway: GatewayUnderTest) -> None:
        """... to itself, whatever name the caller gives it."""
        for port, headers in ((80, {}), (8434, {}), (80, {"Host": "evil.test"})):
            answer = requests.get(
                f"http://{gateway.address}:{port}/v1/models?x=1", headers=headers,
                allow_redirects=False, timeout=5,
            )  # fmt: skip
            assert answer.status_code == 308
            assert answer.headers["Location"] == f"{gateway.url}/v1/models?x=1"

    def test_curves_of_a_new_openssl(self, gateway: GatewayUnderTest) -> None:
        """One that knows the hybrid curve, as Debian 13's does, agrees on it with another."""
        version = gateway.lab.ssh("edge", "openssl version").split()[1]
        told = gateway.lab.ssh(
            "edge", f"openssl s_client -connect {gateway.address}:8434 </dev/null 2>&1; true"
        )
        is_new = tuple(map(int, version.split(".")[:2])) >= (3, 5)
        assert ("X25519MLKEM768" in told) == is_new, version

    def test_acme(self, gateway: GatewayUnderTest) -> None:
        """A certificate from an ACME server, its renewal, and neither with a hand on anything."""
        name, edge = "llm.lab.test", partial(gateway.lab.ssh, "edge")
        pebble = {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": "/run/pebble.crt", "privateKey": "/run/pebble.key",
            "httpPort": 80, "tlsPort": 443,
        }  # fmt: skip
        config = json.dumps({"pebble": pebble})
        edge(
            "echo '127.0.0.1 pebble.lab.test' >> /etc/hosts; "
            f"echo '{gateway.address} {name}' >> /etc/hosts; "
            "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y pebble >/dev/null; cd /run; "
            "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=pebble -addext "
            "subjectAltName=DNS:pebble.lab.test -keyout pebble.key -out pebble.crt 2>/dev/null; "
            "cp pebble.crt /usr/local/share/ca-certificates/; update-ca-certificates >/dev/null; "
            f"cat > pebble.json <<'EOF'\n{config}\nEOF\n"
            "systemd-run --quiet --unit test-pebble -E PEBBLE_VA_NOSLEEP=1 "
            "pebble -config /run/pebble.json; "
            "until curl -fs -o /dev/null https://pebble.lab.test:14000/dir; do sleep 0.2; done"
        )
        acme = {
            "gateway_tls": "acme", "gateway_names": [name], "gateway_acme_email": "ops@lab.test",
            "gateway_acme_directory": "https://pebble.lab.test:14000/dir",
        }  # fmt: skip

        def served() -> str:
            return edge(
                f"openssl s_client -connect {gateway.address}:8434 -servername {name} </dev/null "
                "2>/dev/null | openssl x509 -noout -issuer -serial -ext subjectAltName"
            )

        try:
            gateway.deploy(**acme)
            first = served()
            assert "Pebble" in first
            assert f"DNS:{name}" in first
            assert gateway.deploy(**acme) == {}
            edge("certbot renew -q --force-renewal --no-random-sleep-on-renew")
            time.sleep(1)
            assert "Pebble" in served()
            assert served() != first
            assert gateway.deploy(**acme) == {}
            assert edge("systemctl is-enabled certbot.timer") == "enabled"
        finally:
            edge("systemctl stop test-pebble")
            gateway.deploy()
        assert gateway.call("GET", "/healthz").status_code == 200

    def test_given_certificate(self, gateway: GatewayUnderTest, tmp_path: Path) -> None:
        """A certificate of another authority, its key through the store; and back."""
        key, certificate = tmp_path / "key.pem", ROOT / ".lab" / "given.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj",
             "/CN=given", "-addext", f"subjectAltName=IP:{gateway.address}", "-keyout", key, "-out",
             certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        store = store_of(ROOT / INVENTORY, ROOT) / "gateway_tls_key"
        store.write_text(key.read_text())
        store.chmod(0o600)
        given = {"gateway_tls": "given", "gateway_tls_certificate": ".lab/given.pem"}
        try:
            gateway.deploy(**given)
            answer = requests.get(f"{gateway.url}/healthz", verify=str(certificate), timeout=10)
            assert answer.status_code == 200
            assert gateway.deploy(**given) == {}
        finally:
            store.unlink()
            certificate.unlink()
            gateway.deploy()
        assert gateway.call("GET", "/healthz").status_code == 200


def _trust(gateway: GatewayUnderTest) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.ca))

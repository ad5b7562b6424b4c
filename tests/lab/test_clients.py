"""What people talk to the gateway with: each example runs as it is, with the real packages.

An ordinary key for inference, the fleet's own authority, and one host that is all of the fleet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from lab import hosts
from lab.state import CACHE, find
from lab.upstream import prepare
from tests.lab import client_packages
from tests.lab.client_packages import EXAMPLES
from tests.lab.conftest import LabUnderTest, _lab
from tests.lab.upstream.gguf import pooled
from tests.lab.upstream.rig import WEIGHTS

INVENTORY = Path("tests/lab/inventories/clients.py")
HOST = "gpu1"
MODEL = "gpt-oss:20b"
POOLED = "/srv/pooled.gguf"
# Seconds for one example: a large package is compiled when it is first imported.
PATIENCE = 180

PARIS = "Paris"
TOKENS = r"^[1-9]\d* \+ [1-9]\d* tokens$"
PIECES = r"^([3-9]|[1-9]\d+) pieces"
CALLED = r"get_weather\('Paris'\)"

# What each has to print, and how often.
PRINTED: dict[str, dict[str, int]] = {
    "openai_chat.py": {PARIS: 2, TOKENS: 1, PIECES + r", [1-9]\d* \+ [1-9]\d* tokens$": 1},
    "openai_tools.py": {CALLED: 1},
    "openai_schema.py": {r"^\{'city': '[^']{1,40}', 'is_capital': (True|False)\}$": 1},
    "openai_embeddings.py": {r" 640 numbers, from -?\d": 2, r"^[1-9]\d* tokens$": 1},
    "openai_responses.py": {PARIS: 2, TOKENS: 1, PIECES + r", [1-9]\d* \+ [1-9]\d* tokens$": 1},
    "anthropic_messages.py": {PARIS: 2, TOKENS: 1, PIECES + r", [1-9]\d* \+ [1-9]\d* tokens$": 1},
    "ollama_chat.py": {
        r"^gpt-oss:20b 268": 1, r"^gpt-oss:20b can completion, tools": 1, PARIS: 1,
        PIECES + r", [1-9]\d* \+ [1-9]\d* tokens$": 1,
    },
    "litellm_providers.py": {r"^(openai|ollama|ollama_chat): .*Paris": 3, TOKENS: 3},
    "openai_agents.py": {
        rf"^(OpenAIChatCompletions|OpenAIResponses|Litellm)Model: {CALLED}": 3,
        r"^[1-9]\d* tokens$": 3,
    },
    "langchain_chat.py": {r"^Chat(OpenAI|Ollama): .*Paris": 2, TOKENS: 2, PIECES + ": .*Paris": 2},
    "llamaindex_chat.py": {PARIS: 2, PIECES + ": .*Paris": 1, "a context of 32768": 1},
    "pydantic_ai_agent.py": {rf"^(OpenAI|Ollama)Provider: {CALLED}": 2, r"^[1-9]\d* tokens$": 2},
    "node/ollama.mjs": {
        r"^gpt-oss:20b$": 1, r"^gpt-oss:20b can completion, tools": 1, PARIS: 1,
        PIECES + r", [1-9]\d* \+ [1-9]\d* tokens$": 1,
    },
    "node/ai.mjs": {PARIS: 2, TOKENS: 1, PIECES + "$": 1},
}  # fmt: skip


class Site:
    """The gateway as somebody knows it who was given a key."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        self.lab = lab
        self.url = f"https://{lab.state['hosts'][HOST]['address']}:8434"
        self.ca = folder / "fleet-ca.pem"
        self.ca.write_text(lab.fleet("ca", INVENTORY).stdout)
        self.key = lab.fleet("key", "show", INVENTORY, "clients").stdout.strip()
        # Node takes a package from beside the program that asks for it.
        (folder / "node_modules").symlink_to(client_packages.node_modules())
        self.folder = folder

    def run(self, example: str) -> str:
        """What an example prints, which must succeed."""
        program: list[Any] = [client_packages.python(), EXAMPLES / example]
        if example.endswith(".mjs"):
            copy = self.folder / Path(example).name
            copy.write_bytes((EXAMPLES / example).read_bytes())
            program = ["node", copy]
        done = subprocess.run(
            program,
            env={
                "PATH": os.environ["PATH"], "HOME": str(self.folder), "LLM_URL": self.url,
                "LLM_KEY": self.key, "LLM_MODEL": MODEL, "LLM_EMBEDDING_MODEL": "pooled",
                "SSL_CERT_FILE": str(self.ca), "NODE_EXTRA_CA_CERTS": str(self.ca),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
        return done.stdout

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """A request with the key, its path as it is written."""
        with requests.Session() as session:
            asked = requests.Request(method, self.url, **more)
            asked.headers["Authorization"] = f"Bearer {self.key}"
            prepared = session.prepare_request(asked)
            prepared.url = self.url + path
            return session.send(prepared, verify=str(self.ca), timeout=60)

    def loaded(self) -> tuple[str, int, str]:
        """The process that serves MODEL, the context it was loaded with, and until which year."""
        api = f"http://{self.lab.state['hosts'][HOST]['address']}:11434/api/ps"
        models = json.loads(self.lab.ssh(HOST, f"curl -fsS {api}"))["models"]
        [entry] = [model for model in models if model["name"] == MODEL]
        digest = WEIGHTS.replace(":", "-")
        process = self.lab.ssh(HOST, f"pgrep -f '[l]lama-server --model .*{digest}'")
        return process, entry["context_length"], entry["expires_at"][:4]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A bare host after a deploy, with a model for chats and one for embeddings."""
    folder = tmp_path_factory.mktemp("clients")
    for lab in _lab("clients", "--hosts", "1"):
        weights = prepare(CACHE).root / "v2" / "library" / "tiny" / "blobs" / WEIGHTS
        pooled(weights, folder / "pooled.gguf")
        with (folder / "pooled.gguf").open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            own = find(lab.id)
            assert own
            command = [*hosts.ssh(own, HOST), f"cat > {POOLED}"]
            subprocess.run(command, stdin=file, check=True, timeout=60)
        (folder / "pooled.gguf").unlink()
        lab.deploy(inventory=INVENTORY, CLIENTS=sha256)
        yield Site(lab, folder)


def test_each_example_is_run() -> None:
    files = {
        str(path.relative_to(EXAMPLES))
        for pattern in ("*.py", "node/*.mjs")
        for path in EXAMPLES.glob(pattern)
    }
    assert files == set(PRINTED)


@pytest.fixture(scope="module")
def before(site: Site) -> tuple[str, int, str]:
    """How the model was loaded before any of them came."""
    return site.loaded()


@pytest.mark.parametrize("example", PRINTED)
def test_example(site: Site, before: object, example: str) -> None:
    said = site.run(example)
    found = {pattern: len(re.findall(pattern, said, re.MULTILINE)) for pattern in PRINTED[example]}
    assert found == PRINTED[example], said


def test_none_was_refused_anything_or_loaded_a_model_anew(
    site: Site, before: tuple[str, int, str]
) -> None:
    """... though some sent a context of their own, and some ask about the model first."""
    time.sleep(1.5)  # the log is written once a second
    text = site.lab.ssh(HOST, "cat /var/log/llm-fleet/gateway.log")
    entries = [json.loads(line) for line in text.splitlines()]
    asked = {(entry["path"], entry["status"]) for entry in entries if entry["key"] == "clients"}
    assert {path for path, _ in asked} > {"/api/show", "/api/chat", "/v1/responses"}
    assert {path for path, status in asked if int(status) != 200} == set()
    assert site.loaded() == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_command_of_ollama_asks_first(site: Site, method: str) -> None:
    """It has no key to send: who has one is told that somebody is there, and nobody else is."""
    answer = site.ask(method, "/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running" * (method == "GET"))
    stranger = requests.request(method, f"{site.url}/", verify=str(site.ca), timeout=60)
    assert stranger.status_code == 401


_QUESTION = {"role": "user", "content": "What is the capital of France?"}
_ASKED: dict[str, Any] = {"model": MODEL, "messages": [_QUESTION], "stream": False}
_OPENAI = {**_ASKED, "temperature": 0}
_OLLAMA = {**_ASKED, "options": {"temperature": 0}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("//v1/models", None),
        ("/v1/models/", None),
        ("/v1//models", None),
        (f"//v1/models/{MODEL}", None),
        ("//api/tags", None),
        ("/api/tags/", None),
        ("//v1/chat/completions", _OPENAI),
        ("/v1/chat/completions/", _OPENAI),
        ("/v1//chat/completions", _OPENAI),
        ("//api/chat", _OLLAMA),
        ("/api/chat/", _OLLAMA),
    ],
)
def test_slashes_too_many(site: Site, path: str, body: Any) -> None:
    """As they come from an address that ends in one, or begins with two."""
    answer = site.ask("GET" if body is None else "POST", path, json=body)
    assert answer.status_code == 200, answer.text
    assert (PARIS if body else MODEL) in answer.text


def test_openai_with_an_address_of_too_many_slashes(site: Site) -> None:
    with openai.OpenAI(
        base_url=f"{site.url}//v1/", api_key=site.key, max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=site.ca)),
    ) as client:  # fmt: skip
        answer = client.chat.completions.create(**_OPENAI).choices[0].message.content
    assert PARIS in (answer or "")

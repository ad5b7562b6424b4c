"""The set-up of Dify against its stand-in: everything from bare, then only what differs."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from fleet.dify.files import client_config, programs
from fleet.kit.paths import LIB
from lab.dify import package
from tests.fleets import fleet_of, own_secrets
from tests.host_programs import PYTHON_OPTIONS
from tests.lab.upstream.dify_console import MODELS, Console
from tests.lab.upstream.dify_rig import INIT, Rig
from tests.lab.upstream.rig import MODEL, Server, reachable, until

OWNER = "owner@fleet.internal"
BOX = {
    "private_address": "10.0.0.5",
    "ollama_listen": "private",
    "ollama_models": [MODEL],
    "dify_sha256": "ab" * 32,
    "dify_owner_email": OWNER,
    "dify_plugin_sha256": "cd" * 32,
}
__all__ = ["own_secrets"]

BARE = ["no owner yet"]
KNOWLEDGE = """import sys
sys.path.insert(0, sys.argv[1])
from dify_console import dify_of
from dify_knowledge import Knowledge
getattr(Knowledge(dify_of(sys.argv[2])), sys.argv[3])()
"""


class Client:
    """The program as it lies on a host, with the configuration that the task writes."""

    def __init__(self, rig: Rig, ollama: Server, folder: Path, **settings: Any) -> None:
        self.rig, self.folder = rig, folder
        package = folder / "ollama.difypkg"
        package.write_bytes(rig.package())
        declared = {**BOX, "dify_plugin_package": str(package), **settings}
        fleet = fleet_of({"box": ("gpu dify", declared)})
        self.config = client_config(fleet["box"], fleet) | {
            "url": rig.url,
            "init_password": INIT,
            "plugin": {
                "package": str(package),
                "sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
                "kept": str(folder / "kept.difypkg"),
            },
            "ollama": {"url": ollama.url, "key": None},
            "keys": str(folder / "keys.json"),
            "memory": str(folder / "memory.json"),
            "ready_timeout": 30,
            "retry_timeout": 30,
            "stream_timeout": 10,
        }
        for program in programs():
            (folder / Path(program.path).relative_to(LIB)).write_text(program.text)

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "client.json"
        path.write_text(json.dumps(self.config))
        return subprocess.run(
            [sys.executable, *PYTHON_OPTIONS, self.folder / "dify_client.py", command, path],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def declare(self, version: str) -> None:
        """Have another version of the plugin's package declared."""
        package = Path(self.config["plugin"]["package"])
        package.write_bytes(self.rig.package(version))
        self.config["plugin"]["sha256"] = hashlib.sha256(package.read_bytes()).hexdigest()

    def knowledge(self, what: str) -> str:
        """What an upgrade says when it notes, or proves, the knowledge that answers."""
        self.pending  # noqa: B018 - writes the configuration
        done = subprocess.run(
            [sys.executable, *PYTHON_OPTIONS, "-c", KNOWLEDGE, self.folder,
             self.folder / "client.json", what],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stdout + done.stderr

    @property
    def pending(self) -> list[str]:
        """What a deploy would change."""
        done = self("check")
        assert done.returncode == 0, done.stderr
        reasons: list[str] = json.loads(done.stdout)["pending"]
        return reasons

    def apply(self) -> list[str]:
        """What a deploy changed, line by line."""
        done = self("apply")
        assert done.returncode == 0, done.stdout + done.stderr
        for secret in (self.config["owner"]["password"], INIT, *self.keys.values()):
            assert secret not in done.stdout + done.stderr
        return done.stdout.splitlines()

    def refused(self, command: str = "apply") -> str:
        """What a deploy says that fails."""
        done = self(command)
        assert done.returncode == 1, done.stdout
        return done.stderr

    @property
    def keys(self) -> dict[str, str]:
        """The API keys that were kept."""
        keys: dict[str, str] = json.loads(Path(self.config["keys"]).read_text())
        return keys

    @property
    def installed(self) -> list[str]:
        """Identifiers of the plugins that are there."""
        listed = self.console().get("workspaces/current/plugin/list?page=1&page_size=9")["plugins"]
        return [plugin["plugin_unique_identifier"] for plugin in listed]

    def console(self) -> Console:
        """The owner's browser."""
        console = Console(self.rig.url)
        assert console.login(self.config["owner"]["password"], OWNER).status_code == 200
        return console


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A Dify of each test's own, not below pytest's folder, which PostgreSQL may not enter."""
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder))
        try:
            yield rig.start()
        finally:
            rig.stop()


@pytest.fixture
def client(rig: Rig, shared: Server, tmp_path: Path, own_secrets: Path) -> Client:
    return Client(rig, shared, tmp_path)


def test_from_bare_to_a_chat_and_then_nothing(client: Client) -> None:
    assert client.pending == BARE
    client.apply()
    assert client.pending == []
    assert client.apply() == []
    answers = client("chat")
    assert answers.returncode == 0, answers.stderr
    assert "Paris" in answers.stdout
    assert stat.S_IMODE(Path(client.config["keys"]).stat().st_mode) == 0o600
    # Nothing of it twice, whatever was looked at and done again.
    console = client.console()
    assert len(console.get("apps?page=1&limit=100")["data"]) == 2
    assert client.rig.sql("SELECT count(*) FROM provider_model_credentials") == "1"
    assert client.rig.sql("SELECT count(*) FROM api_tokens") == "2"


def test_each_difference_is_mended_and_nothing_else(client: Client) -> None:
    client.apply()
    console = client.console()
    apps = {item["mode"]: item["id"] for item in console.get("apps?page=1&limit=100")["data"]}
    upgrade = {"strategy_setting": "latest", "upgrade_time_of_day": 0, "upgrade_mode": "exclude",
               "exclude_plugins": [], "include_plugins": []}  # fmt: skip
    changes = {
        "workspaces/current/plugin/auto-upgrade/change": {
            "category": "model", "auto_upgrade": upgrade,
        },
        f"apps/{apps['chat']}/model-config": {
            **client.config["apps"][0]["model_config"], "pre_prompt": "Lie.",
        },
        f"apps/{apps['advanced-chat']}/api-enable": {"enable_api": False},
    }  # fmt: skip
    for path, body in changes.items():
        assert console.ask("POST", path, body).status_code == 200, path
    assert client.pending == [
        "plugins upgrade themselves (latest)",
        "app 'Fleet chat': changed since, or not published",
        "app 'Fleet chat (workflow)': its API is off",
    ]
    client.apply()
    assert client.pending == []
    assert client.console().get(f"apps/{apps['chat']}")["model_config"]["pre_prompt"] == ""


def test_declared_limits_change_the_one_record(client: Client) -> None:
    client.apply()
    client.config["models"][0]["context_size"] = 16384
    assert client.pending == [f"model {MODEL}: context_size"]
    client.apply()
    assert client.pending == []
    assert client.rig.sql("SELECT count(*) FROM provider_model_credentials") == "1"


def test_other_version_of_the_plugin_takes_the_place_of_the_first(client: Client) -> None:
    client.apply()
    keys = client.keys
    client.declare("1.1.0")
    [reason, *_] = client.pending
    assert reason.startswith("plugin: langgenius/ollama:1.0.0@")
    client.apply()
    assert client.pending == []
    assert client.keys == keys
    [installed] = client.console().get("workspaces/current/plugin/list?page=1&page_size=9")[
        "plugins"
    ]
    assert installed["version"] == "1.1.0"
    assert "Paris" in client("chat").stdout


def test_version_that_cannot_be_installed_leaves_the_first_at_work(client: Client) -> None:
    """Its dependencies cannot be had, and the daemon has forgotten the one before by then."""
    client.apply()
    [first] = client.installed
    client.rig.stop("plugin-daemon")
    client.rig.run("plugin-daemon", PIP_MIRROR_URL="http://127.0.0.1:9")
    client.declare("1.1.0")
    assert f"{first} is installed again" in client.refused()
    assert client.installed == [first]
    assert "Paris" in client("chat").stdout
    client.declare("1.0.0")
    client.apply()
    assert client.pending == []


def test_model_that_was_switched_off_is_switched_on(client: Client) -> None:
    """On Dify's pages: its record is as declared, and every chat fails."""
    client.apply()
    off = {"model": MODEL, "model_type": "llm"}
    assert client.console().ask("PATCH", f"{MODELS}/disable", off).status_code == 200
    assert "is disabled" in client.refused("chat")
    assert client.pending == [f"model {MODEL}: disabled"]
    client.apply()
    assert client.pending == []
    assert "Paris" in client("chat").stdout


def test_knowledge_that_answered_has_to_answer_again(client: Client) -> None:
    client.rig.run("weaviate")
    until(lambda: reachable(f"127.0.0.1:{client.rig.ports['weaviate']}"), "weaviate listens")
    client.apply()
    made = {"indexing_technique": "high_quality", "lab_texts": ["Paris"]}
    for name, more in (("books", {}), ("empty", {"lab_texts": []}), ("lost", {})):
        answer = client.console().ask("POST", "datasets", {"name": name, **made, **more})
        assert answer.status_code == 201
    client.rig.sql("UPDATE datasets SET id = gen_random_uuid() WHERE name = 'lost'")
    assert client.knowledge("note") == ""
    assert "asking knowledge: books" in client.knowledge("prove")
    client.rig.stop("weaviate")
    client.config["retry_timeout"] = 2
    assert "knowledge 'books' answered before, and does not now" in client.knowledge("prove")


def test_other_version_of_the_marketplace(
    shared: Server, registry: str, tmp_path: Path, own_secrets: Path
) -> None:
    """One that cannot be had leaves the first at work."""
    market = {
        "MARKETPLACE_ENABLED": "true",
        "MARKETPLACE_API_URL": f"http://{registry}/marketplace",
    }
    first, other = (
        package.read(package.make(version)).identifier for version in ("1.0.0", "1.1.0")
    )
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder), settings=market)
        try:
            rig.start()
            client = Client(rig, shared, tmp_path)
            client.config["plugin"] = {"identifier": first}
            client.apply()
            client.config["plugin"] = {"identifier": f"{other[:-1]}x"}
            assert "Failed to download" in client.refused()
            assert client.installed == [first]
            assert "Paris" in client("chat").stdout
            client.config["plugin"] = {"identifier": other}
            client.apply()
            assert client.pending == []
            assert client.installed == [other]
            assert "Paris" in client("chat").stdout
        finally:
            rig.stop()


def test_lost_memory_costs_writes_and_no_duplicates(client: Client) -> None:
    """Of a host that was restored without it, or a run that died before it was written."""
    client.apply()
    keys = client.keys
    Path(client.config["memory"]).unlink()
    Path(client.config["keys"]).unlink()
    client.apply()
    assert client.pending == []
    assert client.keys == keys
    assert client.rig.sql("SELECT count(*) FROM provider_model_credentials") == "1"
    assert client.rig.sql("SELECT count(*) FROM apps") == "2"


def test_wrong_password_is_counted_once_however_often_one_deploys(client: Client) -> None:
    client.apply()
    right = client.config["owner"]["password"]
    client.config["owner"]["password"] = "another1"
    assert f"the password of {OWNER} is refused" in client.refused()
    for command in ("apply", "check", "apply"):
        assert "is not tried again" in client.refused(command)
    # Five more are let through before the lock: only one was used up.
    console = Console(client.rig.url)
    for _ in range(5):
        assert console.login("wrong-Passw0rd", OWNER).status_code == 401
    assert console.login("wrong-Passw0rd", OWNER).status_code == 429
    client.config["owner"]["password"] = right
    assert "was tried too often" in client.refused()
    reset = ("--email", OWNER, "--new-password", right, "--password-confirm", right)
    assert "Password reset successfully." in client.rig.flask("reset-password", *reset).stdout
    client.apply()


def test_cookies_of_a_dify_behind_https(shared: Server, tmp_path: Path, own_secrets: Path) -> None:
    """Marked Secure and __Host-, they must still go back over the host's own plain HTTP."""
    url = "https://dify.example.com"
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder), settings={"CONSOLE_API_URL": url, "CONSOLE_WEB_URL": url})
        try:
            rig.start()
            client = Client(rig, shared, tmp_path)
            client.apply()
            assert client.pending == []
        finally:
            rig.stop()


class TestWhatIsNotUp:
    def test_ollama(self, client: Client) -> None:
        client.config["ollama"]["url"] = "http://127.0.0.1:9"
        said = client.refused()
        assert f"model {MODEL} at http://127.0.0.1:9" in said
        assert "Connection refused" in said

    def test_worker(self, client: Client) -> None:
        """A stream that never ends is no answer; blocking chats do not notice."""
        client.apply()
        client.rig.stop("worker")
        answer = requests.post(
            f"{client.rig.url}/v1/chat-messages", timeout=60,
            headers={"Authorization": f"Bearer {client.keys['workflow']}"},
            json={"inputs": {}, "query": "Hello", "user": "x", "auto_generate_name": False},
        )  # fmt: skip
        assert answer.status_code == 200
        assert "is a worker up?" in client.refused("chat")

    def test_daemon_that_starts_late(self, client: Client) -> None:
        client.rig.stop("plugin-daemon")
        program = [sys.executable, *PYTHON_OPTIONS, client.folder / "dify_client.py", "apply"]
        client.pending  # noqa: B018 - writes the configuration
        with subprocess.Popen(
            [*program, client.folder / "client.json"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("making the owner"):
                    client.rig.run("plugin-daemon")
                    break
            process.stdout.read()
        assert process.returncode == 0
        assert client.pending == []

    @pytest.mark.parametrize("late", ["daemon", "plugin"])
    def test_plugin_at_a_chat(self, client: Client, late: str) -> None:
        """As after an upgrade: the API answers, and has nobody to ask yet."""
        client.apply()
        client.rig.stop("plugin-daemon")
        if late == "plugin":
            client.rig.run("plugin-daemon", LAB_PLUGIN_START_SECONDS="8")
            answers = client("chat")
        else:
            with ThreadPoolExecutor() as pool:
                answering = pool.submit(client, "chat")
                time.sleep(4)
                client.rig.run("plugin-daemon")
                answers = answering.result()
        assert answers.returncode == 0, answers.stderr
        assert "Paris" in answers.stdout

    def test_dify(self, client: Client) -> None:
        client.rig.stop("api")
        assert client.pending == ["Dify does not answer"]


def test_package_that_is_not_the_declared_one(client: Client) -> None:
    client.config["plugin"]["sha256"] = "0" * 64
    assert "not the package with the declared checksum" in client.refused()
    assert client.rig.sql("SELECT count(*) FROM plugin_installations", "dify_plugin") == "0"

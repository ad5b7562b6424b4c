"""Models on real hosts: over links that misbehave, after damage, restarts and changes of mind."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from fleet.declare.stores import store_of
from tests.lab.conftest import BIN, LAB_INVENTORY, ROOT, LabUnderTest

HOST = "gpu1"
MODEL = "gpt-oss:20b"
MODELS_DIR = "/var/lib/ollama/models"
CONFIG = "/etc/llm-fleet/models.json"
MB = 1_000_000
# What is in flight on three connections when a pull is cut is fetched again.
IN_FLIGHT = 6 * MB
# What the memory gate of each deploy reads of the weights before they are pulled.
HEADS = MB

State = dict[str, Any]


@dataclass
class Site:
    """One host, its loader, and the upstream that it pulls from."""

    lab: LabUnderTest
    weights: str
    size: int

    @property
    def api(self) -> str:
        return f"http://{self.lab.state['hosts'][HOST]['address']}:11434"

    @property
    def upstream(self) -> str:
        return f"http://{self.lab.state['upstream']['address']}:8080"

    @property
    def blob_path(self) -> str:
        """The weights' path in the registry."""
        return f"/v2/library/gpt-oss/blobs/{self.weights}"

    @property
    def blob_file(self) -> str:
        """The weights' file on the host."""
        return f"{MODELS_DIR}/blobs/{self.weights.replace(':', '-')}"

    def ssh(self, command: str, *, check: bool = True) -> str:
        return self.lab.ssh(HOST, command, check=check)

    def call(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """Ollama's answer, asked on the host: its port is closed to this machine."""
        data = f"-d '{json.dumps(body)}'" if body is not None else ""
        patience = "--max-time 120 --retry 20 --retry-delay 1 --retry-connrefused"
        text = self.ssh(f"curl -sS {patience} -X {method} {self.api}{path} {data}")
        return json.loads(text) if text else None

    def digest(self, name: str = MODEL) -> str | None:
        tags = {model["name"]: model for model in self.call("/api/tags", method="GET")["models"]}
        return tags[name]["digest"] if name in tags else None

    def loaded(self) -> dict[str, int]:
        """Loaded models and their contexts."""
        running = self.call("/api/ps", method="GET")["models"]
        return {model["name"]: model["context_length"] for model in running}

    def break_link(self, *faults: dict[str, Any]) -> None:
        """Have the upstream misbehave from now on, only in this way, and count bytes anew."""
        requests.put(
            f"{self.upstream}/_lab/faults", json=list(faults), timeout=10
        ).raise_for_status()

    def served(self) -> int:
        """Bytes of the weights that went out since the last call of `forget_models`."""
        return int(
            requests.get(f"{self.upstream}/_lab/served", timeout=10).json().get(self.blob_path, 0)
        )

    def forget_models(self) -> None:
        """Delete every model, and count from here."""
        self.ssh("systemctl stop ollama-models")
        for model in self.call("/api/tags", method="GET")["models"]:
            self.call("/api/delete", {"model": model["name"]}, "DELETE")
        # A pull that was stopped leaves blobs that no model names.
        self.ssh(f"rm -f {MODELS_DIR}/blobs/*")
        requests.delete(f"{self.upstream}/_lab/served", timeout=10).raise_for_status()

    def configure(self, change: Callable[[State], None] = lambda config: None) -> None:
        """Give the loader its declared configuration with impatient limits, and a change."""
        config = json.loads(self.ssh(f"cat {CONFIG}.declared"))
        config["limits"] |= {"no_progress": 3, "first_delay": 0.2, "longest_delay": 1}
        change(config)
        self.ssh(f"cat > {CONFIG} <<'EOF'\n{json.dumps(config)}\nEOF")

    def start(self) -> None:
        self.ssh("rm -f /run/llm-fleet-models/state.json; systemctl restart ollama-models")

    @property
    def state(self) -> State:
        text = self.ssh("cat /run/llm-fleet-models/state.json 2>/dev/null", check=False)
        return json.loads(text) if text else {"models": {}, "finished": False}

    def until(self, reached: Callable[[State], bool], within: float = 60) -> State:
        """Wait for something in the loader's state."""
        deadline = time.monotonic() + within
        while not reached(state := self.state):
            journal = "journalctl --no-pager -o cat -n 30 -u ollama-models -u ollama"
            assert time.monotonic() < deadline, f"{state}\n{self.ssh(journal)}"
            time.sleep(0.1)
        return state

    def run(self) -> State:
        """Run the loader to its end; the entry of the model."""
        self.start()
        return self.until(lambda state: state["finished"])

    def assert_whole(self) -> None:
        """The model is what the registry has, and answers."""
        assert self.ssh(f"sha256sum < {self.blob_file}").split()[0] == self.weights[7:]
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        answer = self.call("/api/chat", {"model": MODEL, "messages": messages, "stream": False})
        assert "Paris" in answer["message"]["content"], answer


@pytest.fixture(scope="module")
def site(bare_lab: LabUnderTest) -> Site:
    """The fleet as it was deployed."""
    bare_lab.deploy()
    bare_lab.ssh(HOST, f"cp {CONFIG} {CONFIG}.declared")
    manifest = json.loads(
        bare_lab.ssh(HOST, f"cat {MODELS_DIR}/manifests/registry.ollama.ai/library/gpt-oss/20b")
    )
    weights = max(manifest["layers"], key=lambda layer: layer["size"])
    return Site(bare_lab, weights["digest"], weights["size"])


@pytest.fixture
def bare(site: Site) -> Iterator[Site]:
    """No model on the host, and a link that works again afterwards."""
    site.break_link()
    site.configure()
    site.forget_models()
    yield site
    site.break_link()


@pytest.fixture
def whole(site: Site) -> Iterator[Site]:
    """The declared model on the host."""
    site.break_link()
    site.configure()
    assert site.run()["ok"]
    requests.delete(f"{site.upstream}/_lab/served", timeout=10).raise_for_status()
    yield site
    site.break_link()


def _entry(state: State, name: str = MODEL) -> State:
    entry: State = state["models"].get(name, {"error": "", "completed": 0, "phase": ""})
    return entry


class TestLink:
    """Each resumes: what is fetched in all is the file once, and what was in flight."""

    def test_stall_without_end(self, bare: Site) -> None:
        bare.break_link({"path": bare.blob_path, "ranges": True, "stall_at": 50 * MB})
        bare.start()
        state = bare.until(lambda state: "no new byte for 3 s" in _entry(state)["error"])
        assert "of 253.1 MB" in _entry(state)["error"]
        assert bare.digest() is None
        bare.break_link()
        state = bare.until(lambda state: state["finished"])
        assert (state["ok"], _entry(state)["attempts"] > 1) == (True, True)
        assert bare.size <= bare.served() < bare.size + IN_FLIGHT
        bare.assert_whole()

    def test_collapsed_rate_is_interrupted_and_resumed(self, bare: Site) -> None:
        bare.configure(lambda config: config["limits"].update(slow_rate=30 * MB, slow_window=2))
        slow = {"rate": MB, "rate_from": 60 * MB, "times": 3}
        bare.break_link({"path": bare.blob_path, "ranges": True, **slow})
        began = time.monotonic()
        state = bare.run()
        # At 3 MB/s what is left would take a minute.
        assert time.monotonic() - began < 20
        assert (state["ok"], _entry(state)["attempts"]) == (True, 2)
        assert "is below 30.0 MB/s" in bare.ssh("journalctl -o cat -u ollama-models -n 20")
        assert bare.size <= bare.served() < bare.size + IN_FLIGHT

    def test_slow_pull_goes_on_unless_told_otherwise(self, bare: Site) -> None:
        bare.break_link({"path": bare.blob_path, "ranges": True, "rate": 25 * MB})
        bare.start()
        state = bare.until(lambda state: _entry(state)["completed"] > 100 * MB)
        assert 25 * MB < _entry(state)["rate"] < 100 * MB
        assert _entry(state)["left"] < 10
        state = bare.until(lambda state: state["finished"])
        assert (state["ok"], _entry(state)["attempts"]) == (True, 1)

    def test_cut_at_95_percent(self, bare: Site) -> None:
        cut = {"cut_at": bare.size * 95 // 100, "times": 3}
        bare.break_link({"path": bare.blob_path, "ranges": True, **cut})
        assert bare.run()["ok"]
        assert bare.size <= bare.served() < bare.size + IN_FLIGHT
        bare.assert_whole()

    def test_errors_500(self, bare: Site) -> None:
        bare.break_link(
            {"path": ".*/manifests/.*", "status": 500, "times": 2},
            {"path": bare.blob_path, "ranges": True, "status": 500, "times": 2},
        )
        state = bare.run()
        assert (state["ok"], _entry(state)["attempts"]) == (True, 3)
        bare.assert_whole()

    def test_truncated_on_the_way(self, bare: Site) -> None:
        """Ollama notices, and says so in a line of an answer that began with 200."""
        bare.break_link({"path": bare.blob_path, "size": 200 * MB})
        bare.start()
        bare.until(lambda state: "digest mismatch" in _entry(state)["error"])
        assert bare.digest() is None
        bare.break_link()
        assert bare.until(lambda state: state["finished"])["ok"]
        bare.assert_whole()

    def test_wrong_bytes_on_the_way(self, bare: Site) -> None:
        bare.break_link({"path": bare.blob_path, "ranges": True, "wrong_at": 150 * MB, "times": 3})
        state = bare.run()
        assert (state["ok"], _entry(state)["attempts"]) == (True, 2)
        bare.assert_whole()

    def test_what_no_registry_has_fails_and_is_tried_again_later(self, bare: Site) -> None:
        def other(config: State) -> None:
            [model] = config["models"]
            model["source"] = model["source"].replace("20b", "21b")

        bare.configure(other)
        state = bare.run()
        assert not state["ok"]
        assert "404" in _entry(state)["error"]
        assert _entry(state)["attempts"] == 1
        assert bare.ssh("systemctl is-active ollama-models-again.timer") == "active"
        assert bare.ssh("systemctl stop ollama; systemctl is-active ollama-models-again.timer",
                        check=False) == "inactive"  # fmt: skip
        bare.ssh("systemctl start ollama")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("printf XXXX | dd of={} bs=1 seek=100000000 conv=notrunc", "has the SHA-256"),
        ("truncate -s 200000000 {}", "has 200000000 bytes of 253113024"),
        ("rm {}", "is missing"),
    ],
    ids=["wrong bytes of the right length", "truncated", "missing"],
)
def test_damaged_blob_is_fetched_again(whole: Site, damage: str, what: str) -> None:
    """Ollama would call a pull of it a success, and answer with nothing."""
    whole.call("/api/generate", {"model": MODEL, "keep_alive": -1, "stream": False})
    pid = whole.ssh("pgrep -f llama-server | head -1")
    whole.ssh(damage.format(whole.blob_file) + " 2>/dev/null")
    assert whole.run()["ok"]
    assert what in whole.ssh("journalctl -o cat -u ollama-models -n 20")
    assert whole.served() == whole.size
    if what != "is missing":
        assert whole.ssh("pgrep -f llama-server", check=False) != pid, "serves what it had loaded"
    whole.assert_whole()


def test_nothing_is_hashed_or_asked_when_nothing_changed(whole: Site) -> None:
    assert whole.run()["ok"]
    usage = whole.ssh("systemctl show --value -p CPUUsageNSec ollama-models")
    assert whole.served() == 0
    assert int(usage) < 1e9, "hashing 253 MB takes longer"


def test_full_disk_is_noticed_before_the_first_byte(bare: Site) -> None:
    bare.ssh(f"mount -t tmpfs -o size=100m,uid=$(id -u ollama) small {MODELS_DIR}")
    try:
        bare.ssh("systemctl restart ollama")
        state = bare.run()
    finally:
        bare.ssh("systemctl stop ollama-models ollama")
        bare.ssh(f"umount {MODELS_DIR}; systemctl start ollama")
    assert not state["ok"]
    error = _entry(state)["error"]
    assert error.startswith("needs 253.1 MB and a reserve of 500.0 MB, but 104.9 MB are free in ")
    assert f"{MODELS_DIR}: nothing was fetched" in error
    assert bare.served() == 0


def test_release_that_does_not_fit_is_not_fetched(site: Site) -> None:
    """Judged by the host's own tools, in a file system of hardly more than the reserve."""
    version = site.ssh("readlink /opt/ollama/current").rsplit("/", 1)[-1]
    path = f"ollama/ollama/releases/download/v{version}/ollama-linux-amd64.tar.zst"
    fetch = f"/usr/local/lib/llm-fleet/fetch-release {site.upstream}/{path} {'0' * 64} /mnt/1.0.0"
    try:
        said = site.ssh(
            "mount -t tmpfs -o size=960m small /mnt; touch /mnt/0.9.0.part;"
            f" {fetch} 2>&1; ls -A /mnt",
            check=False,
        )
    finally:
        site.ssh("umount /mnt")
    assert "a reserve of 1000 MB, but 1006 MB are free in /mnt" in said
    assert said.endswith("nothing was fetched"), "something is left"


def _slowly(site: Site) -> State:
    site.break_link({"path": site.blob_path, "ranges": True, "rate": 20 * MB})
    site.start()
    return site.until(lambda state: _entry(state)["completed"] > 80 * MB)


def test_ollama_restarted_in_mid_pull(bare: Site) -> None:
    """... more than an hour after it began, when Ollama's own start would delete what is there."""
    _slowly(bare)
    bare.ssh(
        f"systemctl stop ollama-models ollama; touch -d '2 hours ago' {MODELS_DIR}/blobs/*;"
        " systemctl start ollama"
    )
    bare.break_link()
    state = bare.until(lambda state: state["finished"])
    assert state["ok"]
    assert bare.size <= bare.served() < bare.size + IN_FLIGHT
    bare.assert_whole()


def test_killed_loader_goes_on_at_once(bare: Site) -> None:
    _slowly(bare)
    bare.break_link()
    bare.ssh("systemctl kill -s KILL ollama-models")
    began = time.monotonic()
    assert bare.until(lambda state: state["finished"])["ok"]
    assert time.monotonic() - began < 60, "it waited as after a failure"
    assert bare.served() < bare.size + IN_FLIGHT


def test_restart_of_ollama_takes_the_loader_along(bare: Site) -> None:
    _slowly(bare)
    before = bare.ssh("systemctl show --value -p InvocationID ollama-models")
    bare.ssh("systemctl restart ollama")
    assert bare.ssh("systemctl show --value -p InvocationID ollama-models") != before
    bare.break_link()
    assert bare.until(lambda state: state["finished"])["ok"]
    assert bare.served() < bare.size + IN_FLIGHT


def test_two_loaders_share_one_directory(bare: Site) -> None:
    """As two Ollamas with one models directory would have it: pulled once."""
    bare.ssh(
        f"sed 's#/run/llm-fleet-models#/var/lib/ollama/second#; s#/var/lib/llm-fleet-models#"
        f"/var/lib/ollama/second#' {CONFIG} > /etc/llm-fleet/second.json"
    )
    _slowly(bare)
    bare.ssh(
        "systemd-run --quiet --unit second --uid ollama --property RemainAfterExit=yes"
        " python3 /usr/local/lib/llm-fleet/model_loader.py /etc/llm-fleet/second.json"
    )
    try:
        second = "cat /var/lib/ollama/second/state.json"
        deadline = time.monotonic() + 30
        while "another loader is at work" not in bare.ssh(second, check=False):
            assert time.monotonic() < deadline
        assert bare.until(lambda state: state["finished"])["ok"]
        while not json.loads(bare.ssh(second))["finished"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert json.loads(bare.ssh(second))["ok"]
    finally:
        bare.ssh("systemctl stop second; rm -rf /var/lib/ollama/second")
    assert bare.served() == bare.size


class TestPin:
    def test_moved_tag_is_refused_with_both_digests(self, whole: Site) -> None:
        declared, path = whole.digest(), "/v2/library/gpt-oss/manifests/"
        whole.break_link({"path": f"{path}20b", "serve": f"{path}120b"})

        def pin(config: State) -> None:
            config["models"][0]["digest"] = declared

        whole.configure(pin)
        assert whole.run()["ok"], "what is there is what is declared"
        whole.call("/api/delete", {"model": MODEL}, "DELETE")
        state = whole.run()
        assert not state["ok"]
        error = _entry(state)["error"]
        assert f"declared is the digest {declared}, the registry has " in error
        assert whole.digest() is None
        assert whole.served() == 0
        whole.break_link()
        assert whole.run()["ok"]
        assert whole.digest() == declared

    def test_other_digest_leaves_what_is_there(self, whole: Site) -> None:
        before = whole.digest()

        def pin(config: State) -> None:
            config["models"][0]["digest"] = "ab" * 32

        whole.configure(pin)
        state = whole.run()
        assert not state["ok"]
        assert "ab" * 32 in _entry(state)["error"]
        assert str(before) in _entry(state)["error"]
        assert whole.digest() == before
        whole.assert_whole()


def _custom(**changes: Any) -> str:
    parameters = {"num_ctx": 2048, "temperature": 0.5, "stop": ["\n", "User:"]}
    model = {"name": "analyst", "base": MODEL, "parameters": parameters, "load": True, **changes}
    return "ollama_models=" + json.dumps([model])


def _options(site: Site, name: str) -> dict[str, set[str]]:
    options: dict[str, set[str]] = {}
    for line in site.call("/api/show", {"model": name})["parameters"].splitlines():
        key, value = line.split(maxsplit=1)
        options.setdefault(key, set()).add(value)
    return options


def test_custom_model_is_made_anew_when_it_changed_and_only_then(whole: Site) -> None:
    """Also: what was loaded is loaded again, in its own context, whenever Ollama starts."""
    lab = whole.lab
    provide = "Models | Provide the models"
    assert provide in lab.deploy("--data", _custom())
    first = whole.digest("analyst:latest")
    assert whole.loaded() == {"analyst:latest": 2048}
    assert _options(whole, "analyst")["num_ctx"] == {"2048"}
    assert _options(whole, "analyst")["stop"] == {'"\\n"', '"User:"'}
    assert lab.deploy("--data", _custom()) == {}
    assert whole.digest("analyst:latest") == first

    changed = _custom(parameters={"num_ctx": 3072}, system="Be brief.")
    assert provide in lab.deploy("--data", changed)
    assert whole.loaded() == {"analyst:latest": 3072}
    # What is not declared any more is the base's again.
    assert _options(whole, "analyst")["temperature"] == _options(whole, MODEL)["temperature"]
    made = whole.digest("analyst:latest")
    assert made != first

    by_hand = {"model": "analyst", "from": MODEL, "system": "Ramble.", "stream": False}
    whole.call("/api/create", by_hand)
    assert "Models | Provide the models" in lab.deploy("--data", changed)
    assert whole.call("/api/show", {"model": "analyst"})["system"] == "Be brief."
    assert lab.deploy("--data", changed) == {}

    for stop in ("systemctl restart ollama", "systemctl kill -s KILL ollama", "systemctl reboot"):
        started = whole.ssh(
            "systemctl show --value -p InvocationID ollama; cat /proc/sys/kernel/random/boot_id"
        )
        whole.ssh(f"{stop}", check=False)
        _assert_warm(whole, "analyst:latest", 3072, started, stop)


def _assert_warm(site: Site, name: str, context: int, started: str, why: str) -> None:
    ask = (
        "systemctl show --value -p InvocationID ollama; cat /proc/sys/kernel/random/boot_id;"
        f" curl -sS --max-time 5 {site.api}/api/ps"
    )
    deadline = time.monotonic() + 60
    while True:
        answer = site.ssh(ask, check=False)
        if (
            answer
            and not answer.startswith(started.split("\n", maxsplit=1)[0])
            and f'"{name}"' in answer
        ):
            break
        assert time.monotonic() < deadline, f"{name} is not warm after {why}: {answer}"
        time.sleep(0.3)
    assert site.loaded() == {name: context}


def _deploying(site: Site, *data: str) -> subprocess.Popen[str]:
    options = [part for item in data for part in ("--data", item)]
    return subprocess.Popen(
        [BIN / "pyinfra", LAB_INVENTORY, "deploy.py", "-y", *options],
        cwd=ROOT,
        env={"LLM_FLEET_LAB_ID": site.lab.id, "PYINFRA_PROGRESS": "off", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class TestDeploys:
    def test_killed_in_mid_pull_then_attached(self, bare: Site) -> None:
        bare.lab.deploy()
        bare.forget_models()
        # Slow enough that the second deploy finds it at work.
        bare.break_link({"path": bare.blob_path, "ranges": True, "rate": 2 * MB})
        killed = _deploying(bare)
        bare.until(lambda state: 8 * MB < _entry(state)["completed"] < 200 * MB, within=120)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        before = bare.ssh("systemctl show --value -p InvocationID ollama-models")
        attached = _deploying(bare)
        output, _ = attached.communicate(timeout=300)
        assert attached.returncode == 0, output
        # Plain lines, as this is no terminal.
        assert "gpt-oss:20b: pulling" in output
        assert "MB/s" in output
        assert bare.ssh("systemctl show --value -p InvocationID ollama-models") == before
        assert bare.size <= bare.served() < bare.size + HEADS
        assert bare.lab.deploy() == {}

    def test_of_two_at_once_one_pulls(self, bare: Site) -> None:
        bare.lab.deploy()
        bare.forget_models()
        bare.break_link({"path": bare.blob_path, "ranges": True, "rate": 20 * MB})
        both = [_deploying(bare), _deploying(bare)]
        outputs = [process.communicate(timeout=120)[0] for process in both]
        assert sorted(process.returncode for process in both) == [0, 1], "\n".join(outputs)
        assert "another deploy is at work" in "\n".join(outputs)
        assert bare.size <= bare.served() < bare.size + HEADS

    def test_without_waiting(self, bare: Site) -> None:
        bare.lab.deploy()
        bare.forget_models()
        bare.break_link({"path": bare.blob_path, "ranges": True, "rate": 2 * MB})
        bare.lab.deploy("--data", "models_wait=False")
        assert bare.digest() is None, "it waited"
        bare.break_link()
        assert bare.until(lambda state: state["finished"])["ok"]

    def test_failure_is_said_with_its_reason(self, whole: Site) -> None:
        pin = "ollama_models=" + json.dumps([{"name": MODEL, "digest": "ab" * 32}])
        result = whole.lab.pyinfra("-y", "--data", pin, check=False)
        assert result.returncode != 0
        assert "the tag has moved: declared is the digest " + "ab" * 32 in result.stderr
        other = pin.replace("ab" * 32, "cd" * 32)
        result = whole.lab.pyinfra("-y", "--data", other, check=False)
        assert "cd" * 32 in result.stderr
        assert "ab" * 32 not in result.stderr, "the journal of an earlier run"
        whole.lab.deploy()


def test_gguf_by_path_and_by_address(whole: Site) -> None:
    sha256 = whole.weights[7:]
    whole.ssh(f"cp {whole.blob_file} /srv/model.gguf")
    whole.ssh("systemctl stop ollama-models")
    whole.forget_models()
    # Cut once: the second attempt goes on from there.
    whole.break_link({"path": whole.blob_path, "cut_at": 150 * MB, "times": 1})
    address = f"http://upstream.lab:8080{whole.blob_path}"

    def gguf(config: State) -> None:
        [model] = config["models"]
        definition = {"system": "", "template": "", "parameters": {"num_ctx": 1024}}
        common = {"sha256": sha256, "definition": definition}
        config["models"] = [
            {**model, **common, "name": f"{name}:1", "source": f"{name}:1", "gguf": source}
            for name, source in (("fetched", address), ("copied", "/srv/model.gguf"))
        ]

    whole.configure(gguf)
    state = whole.run()
    assert state["ok"], state
    assert _entry(state, "fetched:1")["attempts"] == 2
    assert _options(whole, "fetched:1") == _options(whole, "copied:1") == {"num_ctx": {"1024"}}
    assert whole.ssh(f"ls {MODELS_DIR}/.llm-fleet") == ""
    assert whole.served() < whole.size + IN_FLIGHT
    assert whole.ssh(f"ls {whole.blob_file}", check=False) == "", "what was handed over stays"
    assert _unused_blobs(whole) == set()

    def changed(config: State) -> None:
        gguf(config)
        for model in config["models"]:
            model["definition"] = {"system": "", "template": "", "parameters": {"num_ctx": 512}}

    whole.configure(changed)
    assert whole.run()["ok"]
    assert _options(whole, "fetched:1") == _options(whole, "copied:1") == {"num_ctx": {"512"}}
    assert whole.served() < whole.size + IN_FLIGHT, "it was fetched again"
    assert _unused_blobs(whole) == set()

    def wrong(config: State) -> None:
        gguf(config)
        del config["models"][0]
        config["models"][0]["sha256"] = "ab" * 32

    whole.configure(wrong)
    state = whole.run()
    assert f"the SHA-256 is {sha256}, declared is {'ab' * 32}" in _entry(state, "copied:1")["error"]
    assert "copied:1" in whole.loaded() or whole.digest("copied:1"), "what was there stays"


def _unused_blobs(site: Site) -> set[str]:
    """Files in the store that no model uses."""
    named = site.ssh(f"grep -rhoE 'sha256:[0-9a-f]{{64}}' {MODELS_DIR}/manifests | tr : -")
    return set(site.ssh(f"ls {MODELS_DIR}/blobs").split()) - set(named.split())


# Copies a GGUF file with two more keys: how vectors are pooled, and one that keeps the alignment.
_POOLED = """
import shutil, struct, sys
def key(name, kind, value):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
more = key(b"gemma3.pooling_type", 4, struct.pack("<I", 1))
more += key(b"lab.pad", 8, struct.pack("<Q", 2) + b"xx")
assert len(more) % 32 == 0
with open(sys.argv[1], "rb") as old, open("/srv/pooled.gguf", "wb") as new:
    head = old.read(24)
    new.write(head[:16] + struct.pack("<Q", struct.unpack("<Q", head[16:])[0] + 2) + more)
    shutil.copyfileobj(old, new)
"""


def test_model_that_makes_embeddings(whole: Site) -> None:
    """It is tried, kept in memory, and found to answer, though it refuses to generate."""
    lab, make = whole.lab, f"python3 -c {shlex.quote(_POOLED)} {whole.blob_file}"
    for host in (HOST, "gpu2"):
        sha256 = lab.ssh(host, f"{make} && sha256sum /srv/pooled.gguf").split()[0]
    pooled = {"name": "pooled", "gguf": "/srv/pooled.gguf", "sha256": sha256, "load": True}
    declared = json.dumps([MODEL, pooled])
    _keep_keys()
    lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared)
    assert "pooled:latest" in whole.loaded()
    assert "embedding" in whole.call("/api/show", {"model": "pooled"})["capabilities"]
    assert lab.failing(inventory=CUSTOM_MODELS, LAB_MODELS=declared) == {}
    assert lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared) == {}
    for host in (HOST, "gpu2"):
        api = f"http://{lab.state['hosts'][host]['address']}:11434/api"
        unload = f"""curl -fsS {api}/generate -d '{{"model": "pooled", "keep_alive": 0}}'"""
        lab.ssh(host, f"""{unload}; curl -fsS -X DELETE {api}/delete -d '{{"model": "pooled"}}'""")
    lab.deploy()


def test_prune(whole: Site) -> None:
    for name in ("stray:1", "busy:1"):
        whole.call("/api/copy", {"source": MODEL, "destination": name})
    # Names that share weights share the process that serves them, and the first one names it.
    for name in whole.loaded():
        whole.call("/api/generate", {"model": name, "keep_alive": 0, "stream": False})
    whole.call("/api/generate", {"model": "busy:1", "keep_alive": -1, "stream": False})
    assert list(whole.loaded()) == ["busy:1"]
    result = whole.lab.pyinfra("-y")
    assert "stray:1 (253.1 MB) is not declared: models_prune = True removes it" in result.stderr
    assert whole.digest("stray:1")
    result = whole.lab.pyinfra("-y", "--data", "models_prune=True")
    assert "stray:1 (253.1 MB) is not declared: it is removed" in result.stderr
    assert "busy:1 (253.1 MB) is not declared: in use, so it stays" in result.stderr
    assert whole.digest("stray:1") is None
    assert whole.digest("busy:1")
    assert whole.lab.deploy("--data", "models_prune=True") == {}
    whole.call("/api/generate", {"model": "busy:1", "keep_alive": 0, "stream": False})
    whole.lab.deploy("--data", "models_prune=True")
    assert whole.digest("busy:1") is None
    whole.assert_whole()


def test_auto(whole: Site) -> None:
    result = whole.lab.pyinfra("-y", "--data", 'ollama_models=["auto"]')
    chosen = json.loads(whole.ssh("cat /etc/llm-fleet/model-choice.json"))
    assert f"auto is {chosen['model']}: no GPU, " in result.stderr
    assert whole.digest(chosen["model"])
    assert whole.lab.deploy("--data", 'ollama_models=["auto"]') == {}


CUSTOM_MODELS = Path("tests/lab/custom_models.py")
HASHES = "Every file of the declared models hashes to its name, or is unchanged since it did"
NOTHING_TO_DO = "The loader finds every model as declared, and no file that none of them uses"
# What is done by hand on which host, and the claim that must fail for it there.
DAMAGES = [
    (
        "gpu1",
        "curl -fsS {api}/api/create -d"
        ' \'{{"model":"analyst","from":"gpt-oss:20b","parameters":{{"num_ctx":1024}}}}\'',
        "Every custom model has exactly the declared parameters, system prompt and template",
    ),
    (
        "gpu1",
        "curl -fsS {api}/api/create -d"
        ' \'{{"model":"gpt-oss:20b","from":"gpt-oss:20b","system":"Ramble."}}\'',
        "Every model from a registry is pinned by its digest, and has it",
    ),
    (
        "gpu1",
        "cd {blobs} && f=$(grep -l 'Gemma terms' *) && printf X | dd of=$f conv=notrunc bs=1",
        HASHES,
    ),
    (
        "gpu1",
        "systemctl disable ollama-models",
        "The loader is the declared one, starts with Ollama, and its last run did not fail",
    ),
    (
        "gpu2",
        'curl -fsS {api}/api/generate -d \'{{"model":"analyst","keep_alive":0}}\'',
        "Models that are to stay in memory are there, pinned, and with the declared context",
    ),
    (
        "gpu2",
        "truncate -s 1000000 {weights}",
        "Every declared model answers, asked on its own host",
    ),
]


def _keep_keys() -> None:
    """The other inventory's gateway keeps the keys that it has."""
    shutil.copytree(ROOT / ".secrets/lab", store_of(ROOT / CUSTOM_MODELS, ROOT), dirs_exist_ok=True)


def test_compliance_and_that_each_check_can_fail(whole: Site) -> None:
    lab = whole.lab
    custom = json.loads(_custom().removeprefix("ollama_models="))[0]
    declared = json.dumps([{"name": MODEL, "digest": whole.digest()}, custom])
    _keep_keys()
    lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared)
    # Large files are not hashed, only asked whether they changed: the weights are large here.
    sampled = {"PYTEST_ADDOPTS": "--hash-up-to 1"}
    assert lab.failing(inventory=CUSTOM_MODELS, LAB_MODELS=declared, **sampled) == {}
    assert lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared) == {}, "the checks left traces"
    for host, damage, _ in DAMAGES:
        address = lab.state["hosts"][host]["address"]
        command = damage.format(
            api=f"http://{address}:11434", blobs=f"{MODELS_DIR}/blobs", weights=whole.blob_file
        )
        lab.ssh(host, command)
    failing = lab.failing(inventory=CUSTOM_MODELS, LAB_MODELS=declared, **sampled)
    for host, damage, claim in DAMAGES:
        assert host in failing.get(claim, []), f"nobody noticed: {damage}"
    assert failing[HASHES] == failing[NOTHING_TO_DO] == ["gpu1", "gpu2"]
    lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared)
    assert lab.failing(inventory=CUSTOM_MODELS, LAB_MODELS=declared) == {}
    assert lab.deploy(inventory=CUSTOM_MODELS, LAB_MODELS=declared) == {}

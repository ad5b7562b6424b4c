"""A bare fleet becomes the declared one, stays it, and comes back to it."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from fleet.declare.stores import store_of
from tests.lab.conftest import BIN, LAB_INVENTORY, ROOT, LabUnderTest, published_sha256
from tests.lab.operator_site import OperatorSite

_UNITS = {"gpu1": "ollama.service", "gpu2": "ollama.service", "edge": "nginx.service"}


@pytest.fixture(scope="module")
def lab(bare_lab: LabUnderTest) -> LabUnderTest:
    """The fleet after its first deploy, which goes through a user with sudo."""
    _assert_dry_run_leaves_bare_hosts_alone(bare_lab)
    _assert_refused_settings_change_nothing(bare_lab)
    _watch_processes(bare_lab)
    assert bare_lab.deploy(LAB_USER="ops")
    return bare_lab


@pytest.fixture
def healed(lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """The fleet, for a test that breaks it: the next deploy must repair it."""
    yield lab
    lab.deploy()
    assert lab.failing() == {}
    assert lab.deploy() == {}


def _assert_dry_run_leaves_bare_hosts_alone(lab: LabUnderTest) -> None:
    result = lab.pyinfra("--dry")
    assert "Provide the models" in result.stderr
    for host in lab.state["hosts"]:
        assert lab.ssh(host, "ls -d /etc/llm-fleet /opt/ollama 2>/dev/null; true") == ""
    _assert_dry_run_makes_no_secret(lab)


def _assert_dry_run_makes_no_secret(lab: LabUnderTest) -> None:
    """The lab as an inventory of another name, which has a store of its own: none yet."""
    with tempfile.TemporaryDirectory(prefix="llm-fleet-") as folder:
        inventory = Path(folder) / "fresh.py"
        text = f"from runpy import run_path as _run\n_lab = _run({str(ROOT / LAB_INVENTORY)!r})\n"
        names = ("gpu", "gateway", "all")
        inventory.write_text(text + "".join(f"{name} = _lab[{name!r}]\n" for name in names))
        store = store_of(inventory, ROOT)
        said = lab.pyinfra("--dry", inventory=inventory).stderr
        assert f"--> A deploy would make secrets in {store}: gateway_key_lab, store_id" in said
        assert not store.exists()


def _assert_refused_settings_change_nothing(lab: LabUnderTest) -> None:
    result = lab.pyinfra("-y", "--data", "olama_port=1", check=False)
    assert result.returncode != 0
    assert "gpu1: olama_port = 1: unknown setting; did you mean ollama_port?" in result.stderr
    for host in lab.state["hosts"]:
        assert lab.ssh(host, "ls -d /etc/llm-fleet 2>/dev/null; true") == ""


def _watch_processes(lab: LabUnderTest) -> None:
    """Note every command line and every listening socket of the gateway while it is deployed."""
    lab.ssh(
        "edge",
        "systemd-run --quiet --unit watch-processes sh -c "
        "'while :; do cat /proc/[0-9]*/cmdline 2>/dev/null; ss -Hltn >&2; sleep 0.02; done"
        " > /run/commands 2> /run/sockets'",
    )


def _key(lab: LabUnderTest) -> str:
    result = subprocess.run(
        [BIN / "fleet", "key", "show", LAB_INVENTORY, "lab"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={"LLM_FLEET_LAB_ID": lab.id, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return result.stdout.strip()


def test_no_secret_in_a_command_line(lab: LabUnderTest) -> None:
    lab.ssh("edge", "systemctl stop watch-processes")
    seen = lab.ssh("edge", "tr '\\0' ' ' < /run/commands")
    assert "nginx" in seen, "the watch saw nothing"
    assert _key(lab) not in seen


def test_the_packages_own_site_was_never_open(lab: LabUnderTest) -> None:
    """nginx as it is packaged listens everywhere; it only ever starts with our configuration."""
    sockets = lab.ssh("edge", "cut -c1-60 /run/sockets | sort -u")
    assert ":8434" in sockets, "the watch saw nothing"
    assert ":80 " not in sockets


def test_no_secret_in_any_output(lab: LabUnderTest) -> None:
    key = _key(lab)
    lab.ssh("edge", "rm /etc/llm-fleet/gateway/declared.lua")
    for args in (["--dry", "--diff"], ["--dry", "--debug-operations", "--json"], ["-vvv", "-y"]):
        result = lab.pyinfra(*args, "--debug")
        output = result.stdout + result.stderr
        assert "declared.lua" in output or "Install the configuration" in output
        assert key not in output
        assert key.removeprefix("sk-") not in output


def test_everything_declared_holds(lab: LabUnderTest) -> None:
    assert lab.failing() == {}


def test_gpu_that_is_gone_is_a_failure(healed: LabUnderTest) -> None:
    """The lab's inventory declares none; one host once had one, as far as its note says."""
    lab = healed
    seen = {"gpus": [{"address": "0000:17:00.0", "uuid": "GPU-5a3f1c00-0000-4000-8000-0"}]}
    lab.ssh("gpu2", f"printf '%s' {shlex.quote(json.dumps(seen))} > /etc/llm-fleet/gpus.json")
    before = lab.ssh("gpu2", "systemctl show -p InvocationID ollama; ls -l /etc/llm-fleet")
    with undeclared(lab) as inventory:
        said = lab.pyinfra("-y", inventory=inventory, check=False)
        assert said.returncode != 0
        missing = "missing: 0000:17:00.0 (GPU-5a3f1c00-0000-4000-8000-0)"
        assert "gpu2: 0 of 1 GPUs on the bus (/etc/llm-fleet/gpus.json" in said.stderr
        assert missing in said.stderr
        # The other never had one.
        assert "[gpu1] WARN: no GPU was ever seen here" in said.stderr
        assert "gpu1: 0 of" not in said.stderr
        assert lab.failing(inventory=inventory) == {
            "Every GPU that is declared, or was once seen, is on the bus and in the driver": [
                "gpu2"
            ]
        }
    assert lab.ssh("gpu2", "systemctl show -p InvocationID ollama; ls -l /etc/llm-fleet") == before
    said = lab.pyinfra("-y", "--data", "gpu_count=2", check=False)
    assert "gpu1: 0 of 2 GPUs on the bus (gpu_count = 2)" in said.stderr
    # What is declared is what counts, and forgets.
    assert "Hold the host to its GPUs" in " ".join(lab.deploy())
    assert json.loads(lab.ssh("gpu2", "cat /etc/llm-fleet/gpus.json")) == {"gpus": []}


@contextmanager
def undeclared(lab: LabUnderTest) -> Iterator[Path]:
    """The lab's inventory without a word of GPUs, and with the lab's secrets."""
    with tempfile.TemporaryDirectory(prefix="llm-fleet-") as folder:
        inventory = Path(folder) / "undeclared.py"
        inventory.write_text(
            f"from runpy import run_path as _run\n_lab = _run({str(ROOT / LAB_INVENTORY)!r})\n"
            "def _plain(data):\n"
            "    return {key: value for key, value in data.items() if key != 'gpu_count'}\n"
            "gpu = ([(name, _plain(data)) for name, data in _lab['gpu'][0]], _lab['gpu'][1])\n"
            "gateway, all = _lab['gateway'], _lab['all']\n"
        )
        shutil.copytree(store_of(ROOT / LAB_INVENTORY, ROOT), store_of(inventory, ROOT))
        try:
            yield inventory
        finally:
            shutil.rmtree(store_of(inventory, ROOT))


def test_second_deploy_changes_and_restarts_nothing(lab: LabUnderTest) -> None:
    def invocations() -> dict[str, str]:
        return {
            host: lab.ssh(host, f"systemctl show -p InvocationID -p MainPID {unit}")
            for host, unit in _UNITS.items()
        }

    before = invocations()
    assert lab.deploy() == {}
    assert lab.deploy(LAB_USER="ops") == {}
    assert invocations() == before


def test_from_a_directory_of_the_operators_own(healed: LabUnderTest, tmp_path: Path) -> None:
    """The installed product, encrypted secrets and a pipeline make the same of the same fleet."""
    site = OperatorSite(healed, tmp_path)
    said = site.pipeline()
    assert "edge" in said["check"]
    assert (site.root / "verify.html").is_file()
    assert site.deploy() == {}
    # pyinfra's own options, as docs/operating/inventories.md tells of them.
    unit = "/etc/systemd/system/ollama.service"
    healed.ssh("gpu1", f"echo '# by hand' >> {unit}")
    shown = site.run("pyinfra", "inventory/prod.py", "deploy.py", *site.login(), "--dry", "--diff")
    assert "- # by hand" in re.sub(r"\x1b\[\d*m", "", shown.stderr + shown.stdout)
    assert healed.ssh("gpu1", f"tail -n 1 {unit}") == "# by hand"
    changed = site.deploy("--serial")
    assert {host for hosts in changed.values() for host in hosts} == {"gpu1"}
    assert healed.ssh("gpu1", f"tail -n 1 {unit}") != "# by hand"
    assert (site.root / "secrets" / "prod.age").is_dir()
    assert not [path for path in (site.root / ".secrets").rglob("*") if path.is_file()]


def test_ollamas_own_client_takes_key_and_address_from_the_environment(lab: LabUnderTest) -> None:
    url = f"http://{lab.state['hosts']['edge']['address']}:8434"
    program = "import ollama; print([item.model for item in ollama.list().models])"
    for key, answer in ((_key(lab), "['gpt-oss:20b']"), ("sk-none", "")):
        result = subprocess.run(
            [BIN / "python", "-c", program],
            env={"OLLAMA_HOST": url, "OLLAMA_API_KEY": key, "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.stdout.strip() == answer, result.stderr
    assert "status code: 401" in result.stderr


_UNIT_CLAIM = "The unit is the declared one, without additions, and the running one"
_RULESET_CLAIM = "The kernel's ruleset is exactly the declared one, and is loaded at boot"
_CLOSED_CLAIM = "Ollama's own port cannot be reached from this machine"
_CONFIGURATION_CLAIM = "The configuration is the declared one, and the running one"


@dataclass(frozen=True)
class Damage:
    """Something done to a host by hand, and the claims that must then fail for it."""

    what: str
    host: str
    command: str
    claims: frozenset[str]


_STOPPED = Damage(
    "unit stopped",
    "gpu1",
    "systemctl stop ollama",
    frozenset({"The unit is active and starts at boot"}),
)
_MODEL_DELETED = Damage(
    "model deleted",
    "gpu2",
    "curl -fsS -X DELETE http://$(hostname -I | cut -d' ' -f1):11434/api/delete"
    ' -d \'{"model":"gpt-oss:20b"}\'',
    frozenset(
        {
            "Every declared model is present",
            "Every declared model has all its files, at their full size",
        }
    ),
)
_KEY_CHECK_REMOVED = Damage(
    "key check removed",
    "edge",
    "sed -i 's/if ($refused = 401) { return 401; }//' /etc/llm-fleet/gateway/nginx.conf"
    " && systemctl reload nginx",
    frozenset(
        {
            _CONFIGURATION_CLAIM,
            "Without a key, every path is refused with 401",
            "A key that is not exactly right is refused with 401",
        }
    ),
)
_PORT_OPENED = Damage(
    "port opened to all",
    "gpu1",
    "nft insert rule inet llm_fleet input tcp dport 11434 accept",
    frozenset({_RULESET_CLAIM, _CLOSED_CLAIM}),
)
_UNIT_CHANGED = Damage(
    "unit changed and restarted",
    "gpu2",
    "sed -i s/OLLAMA_NUM_PARALLEL=1/OLLAMA_NUM_PARALLEL=2/ /etc/systemd/system/ollama.service"
    " && systemctl daemon-reload && systemctl restart ollama",
    frozenset({_UNIT_CLAIM, "The running process has exactly the declared environment"}),
)
_KEYS_READABLE = Damage(
    "keys readable",
    "edge",
    "chmod 644 /etc/llm-fleet/gateway/declared.lua",
    frozenset(
        {
            _CONFIGURATION_CLAIM,
            "No key is in a log of the gateway, or readable by others than root",
        }
    ),
)
_RULESET_DROPPED = Damage(
    "ruleset dropped",
    "gpu1",
    "nft delete table inet llm_fleet",
    frozenset({_RULESET_CLAIM, _CLOSED_CLAIM}),
)
_UNIT_FILE_REPLACED = Damage(
    "unit not restarted",
    "gpu2",
    "sed -i s/ProtectHome=yes/ProtectHome=no/ /etc/systemd/system/ollama.service"
    " && systemctl daemon-reload",
    frozenset({_UNIT_CLAIM}),
)
_RELOAD_LOST = Damage(
    "nginx not reloaded",
    "edge",
    # As somebody's trial leaves it: what runs is not what lies there.
    "cd /etc/llm-fleet/gateway && cp -p nginx.conf /root/ && echo '# tried' >> nginx.conf"
    " && systemctl reload nginx && sleep 1 && mv /root/nginx.conf nginx.conf",
    frozenset({_CONFIGURATION_CLAIM}),
)


@pytest.mark.parametrize(
    "damages",
    [
        (_STOPPED, _UNIT_FILE_REPLACED, _KEY_CHECK_REMOVED),
        (_PORT_OPENED, _UNIT_CHANGED, _KEYS_READABLE),
        (_RULESET_DROPPED, _MODEL_DELETED, _RELOAD_LOST),
    ],
    ids=lambda damages: ", ".join(damage.what for damage in damages),
)
def test_damage_is_caught_by_the_right_check_and_repaired(
    healed: LabUnderTest, damages: tuple[Damage, ...]
) -> None:
    """One damage a host, so that each claim can only fail for its own reason."""
    for damage in damages:
        healed.ssh(damage.host, damage.command)
    failing = healed.failing()
    for damage in damages:
        for claim in damage.claims:
            assert failing.get(claim) == [damage.host], (damage.what, claim)


@pytest.mark.parametrize(
    ("host", "addition", "removal", "claim"),
    [
        pytest.param(
            "gpu2",
            "d=/etc/systemd/system/ollama.service.d; mkdir -p $d"
            " && printf '[Service]\\nProtectHome=no\\n' > $d/x.conf && systemctl daemon-reload",
            "rm -r /etc/systemd/system/ollama.service.d && systemctl daemon-reload",
            _UNIT_CLAIM,
            id="drop-in",
        ),
        pytest.param(
            "gpu1",
            "systemd-run --quiet --unit stray python3 -m http.server 9999; sleep 1",
            "systemctl stop stray",
            "TCP listens on exactly the declared addresses",
            id="listener",
        ),
        pytest.param(
            "edge",
            "echo {key} > /var/log/nginx/x.log",
            "rm /var/log/nginx/x.log",
            "No key is in a log of the gateway, or readable by others than root",
            id="key in a log",
        ),
    ],
)
def test_additions_are_caught(
    lab: LabUnderTest, host: str, addition: str, removal: str, claim: str
) -> None:
    """What a deploy does not own, it does not remove; but the checks see it."""
    lab.ssh(host, addition.replace("{key}", _key(lab)))
    try:
        failing = lab.failing()
    finally:
        lab.ssh(host, removal)
    assert failing == {claim: [host]}


def test_reboot(healed: LabUnderTest) -> None:
    """Firewall, service and models are there after a reboot, without a deploy."""
    started = healed.ssh("gpu1", "stat -c %Y /proc/1")
    healed.ssh("gpu1", "systemctl reboot", check=False)
    deadline = time.monotonic() + 60
    while healed.ssh("gpu1", "stat -c %Y /proc/1", check=False) in ("", started):
        assert time.monotonic() < deadline, "gpu1 did not come back"
        time.sleep(0.5)
    healed.ssh("gpu1", "systemctl is-system-running --wait", check=False)
    assert healed.failing() == {}


_FILE = "/etc/systemd/system/ollama.service"
_DROPIN = "/etc/systemd/system/nginx.service.d"
_FAILING = (
    f"sed -i 's|^ExecStart=.*|ExecStart=/bin/false|; s/^RestartSec=.*/RestartSec=0/' {_FILE}; "
    "systemctl daemon-reload; systemctl restart ollama; sleep 3; systemctl is-failed ollama"
)
_STARTING = (
    f"sed -i 's|^ExecStart=|ExecStartPre=/bin/sleep infinity\\n&|' {_FILE}; "
    "systemctl daemon-reload; systemctl restart --no-block ollama; sleep 1; "
    "systemctl is-active ollama | grep -x activating"
)


@pytest.mark.parametrize(
    "damages",
    [
        {
            "gpu1": f"rm {_FILE}; systemctl daemon-reload",
            "gpu2": f"ln -sf /dev/null {_FILE}; systemctl daemon-reload",
            "edge": "systemctl mask nginx",
        },
        {
            "gpu1": f"sed -i 's/^ExecStart=/ExecStart=nowhere/' {_FILE}; systemctl daemon-reload",
            "gpu2": f"rm {_FILE}; mkdir -p {_FILE}/x; systemctl daemon-reload",
            "edge": f"rm -r {_DROPIN}; mkfifo {_DROPIN}.x; systemctl daemon-reload; "
            "systemctl mask --runtime --now nginx",
        },
        {
            "gpu1": _FAILING,
            "gpu2": _STARTING,
            "edge": "systemctl disable --quiet nginx; systemctl enable --quiet --runtime nginx; "
            "systemctl stop nginx; systemctl mask llm-fleet-gateway-metrics 2>/dev/null; true",
        },
        {
            "gpu1": f"systemctl stop ollama; ln -sfn /etc {_FILE}; systemctl daemon-reload",
            "gpu2": f"systemctl stop ollama; ln -sf /nowhere {_FILE}; systemctl daemon-reload",
            "edge": f"rm {_DROPIN}/llm-fleet.conf; mkdir {_DROPIN}/llm-fleet.conf; "
            "systemctl daemon-reload; systemctl restart nginx",
        },
    ],
    ids=[
        "unknown, masked",
        "unreadable, a directory",
        "failed, starting",
        "links to a directory, to nothing",
    ],
)
def test_a_unit_comes_back_from_any_state(lab: LabUnderTest, damages: dict[str, str]) -> None:
    try:
        for host, command in damages.items():
            lab.ssh(host, command)
        lab.deploy()
        shown = "systemctl show --value -p LoadState -p ActiveState -p UnitFileState"
        for host, unit in _UNITS.items():
            assert lab.ssh(host, f"{shown} {unit}").split() == ["loaded", "active", "enabled"]
        assert lab.deploy() == {}
        assert lab.failing() == {}
    finally:
        # What was found in a file's place is kept.
        lab.ssh("gpu2", f"rm -rf {_FILE}.found.*")
        lab.ssh("edge", f"rm -rf {_DROPIN}.x {_DROPIN}/*.found.*")


def test_killed_deploys_converge(healed: LabUnderTest) -> None:
    """A deploy that is killed as it begins a step leaves nothing that the next cannot finish."""
    steps = [
        "Apply the ruleset",
        "Run Ollama as declared",
        "Provide the models",
        "Run nginx as declared",
    ]
    for number, step in enumerate(steps):
        for host in ("gpu1", "gpu2"):
            healed.ssh(host, _MODEL_DELETED.command)
        declared = [
            f"ollama_keep_alive={number + 7}m",
            f"gateway_max_body={number + 65}",
            f"firewall_open_tcp=[{number + 9000}]",
        ]
        data = [part for item in declared for part in ("--data", item)]
        _kill_at(healed, step, data)
        healed.deploy(*data)
        assert healed.deploy(*data) == {}, step
        limit = healed.ssh("edge", "grep client_max_body_size /etc/llm-fleet/gateway/nginx.conf")
        assert f" {number + 65}m;" in limit
        environment = "cat /proc/$(systemctl show --value -p MainPID ollama)/environ"
        assert declared[0].upper() in healed.ssh("gpu1", f"{environment} | tr '\\0' '\\n'").upper()


def _kill_at(lab: LabUnderTest, step: str, data: list[str]) -> None:
    """SIGKILL a deploy the moment it announces `step`."""
    process = subprocess.Popen(
        [BIN / "pyinfra", LAB_INVENTORY, "deploy.py", "-y", *data],
        cwd=ROOT,
        env={"LLM_FLEET_LAB_ID": lab.id, "PYINFRA_PROGRESS": "off", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("--> Starting operation") and step in line:
                process.kill()
                return
    pytest.fail(f"the deploy never came to {step!r}")


def test_wrong_checksum_changes_nothing(healed: LabUnderTest) -> None:
    declared = "f" * 64
    result = healed.pyinfra(
        "-y", "--data", "ollama_version=0.32.8", "--data", f"ollama_sha256={declared}",
        check=False,
    )  # fmt: skip
    assert result.returncode != 0
    message = re.search(
        r"SHA-256 expected (\S+), actual (\S+); nothing was installed", result.stderr
    )
    assert message, result.stderr
    assert message[1] == declared
    assert message[2] == published_sha256(healed, "0.32.8")
    assert healed.failing() == {}


def test_a_store_left_behind_changes_no_key(lab: LabUnderTest, tmp_path: Path) -> None:
    """As a deploy from a second checkout finds it: nothing in .secrets."""
    second = tmp_path / "inventory" / "second_checkout.py"
    second.parent.mkdir()
    shutil.copy(ROOT / LAB_INVENTORY, second)
    (tmp_path / ".lab").symlink_to(ROOT / ".lab")
    before = lab.ssh("edge", "sha256sum /etc/llm-fleet/gateway/declared.lua")
    try:
        result = lab.pyinfra("-y", inventory=second, check=False)
    finally:
        shutil.rmtree(store_of(second, ROOT), ignore_errors=True)
    assert result.returncode != 0
    assert "edge: its keys and passwords come from another secrets store" in result.stderr
    assert lab.ssh("edge", "sha256sum /etc/llm-fleet/gateway/declared.lua") == before
    assert lab.deploy() == {}


def test_refused_configuration_leaves_the_running_one(healed: LabUnderTest) -> None:
    """nginx judges the new files before they replace the old."""
    healed.ssh("edge", "mv /etc/nginx/mime.types /root/")
    try:
        before = healed.ssh("edge", "sha256sum /etc/llm-fleet/gateway/*")
        result = healed.pyinfra("-y", "--data", "gateway_max_body=70", check=False)
        assert result.returncode != 0
        assert "mime.types" in result.stderr
        assert healed.ssh("edge", "sha256sum /etc/llm-fleet/gateway/*") == before
    finally:
        healed.ssh("edge", "mv /root/mime.types /etc/nginx/")


def test_upgrade_and_back(healed: LabUnderTest) -> None:
    """A newer release runs after one deploy, the older one after the next; both stay installed."""
    healed.deploy(
        "--data",
        "ollama_version=0.32.8",
        "--data",
        f"ollama_sha256={published_sha256(healed, '0.32.8')}",
    )
    running = "readlink /proc/$(systemctl show --value -p MainPID ollama)/exe"
    assert healed.ssh("gpu1", running) == "/opt/ollama/0.32.8/bin/ollama"
    healed.deploy()
    assert healed.ssh("gpu1", running) == "/opt/ollama/0.32.7/bin/ollama"
    assert healed.ssh("gpu1", "ls /opt/ollama").split() == ["0.32.7", "0.32.8", "current"]


def test_a_foreign_host_sees_the_gateway_and_nothing_else(lab: LabUnderTest) -> None:
    """From a third host, over IPv4 and IPv6: sshd everywhere, the gateway's port, no more."""
    scan = (
        "import socket, sys\n"
        "for target in sys.argv[1:]:\n"
        "    address, port = target.rsplit('|', 1)\n"
        "    try:\n"
        "        socket.create_connection((address, int(port)), 1).close(); print(target)\n"
        "    except OSError: pass\n"
    )
    hosts = lab.state["hosts"]
    targets = [
        f"{values[family]}|{port}"
        for values in hosts.values()
        for family in ("address", "address6")
        for port in (22, 80, 443, 8434, 11434)
    ]
    result = lab.command("exec-foreign", "python3", "-c", scan, *targets)
    expected = {f"{values[key]}|22" for values in hosts.values() for key in ("address", "address6")}
    expected.add(f"{hosts['edge']['address']}|8434")
    assert set(result.stdout.split()) == expected


def test_stream_is_not_held_back(lab: LabUnderTest) -> None:
    """Parts of an answer arrive one by one, not in one piece at the end."""
    url = f"http://{lab.state['hosts']['edge']['address']}:8434/api/generate"
    body = {"model": "gpt-oss:20b", "prompt": "Once upon a time", "options": {"num_predict": 60}}
    times = []
    with requests.post(
        url, headers={"Authorization": f"Bearer {_key(lab)}"}, json=body, stream=True, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            assert "error" not in json.loads(line)
            times.append(time.monotonic())
    assert len(times) > 4
    # In one piece they would be there within a moment; how long each takes is the machine's affair.
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sum(gap > 0.001 for gap in gaps) > len(gaps) / 2, gaps


def test_large_bodies_pass_up_to_the_declared_size(lab: LabUnderTest) -> None:
    url = f"http://{lab.state['hosts']['edge']['address']}:8434/v1/chat/completions"
    headers = {"Authorization": f"Bearer {_key(lab)}", "Content-Type": "application/json"}

    def status(mebibytes: int) -> int:
        body = '{"model":"no-such-model","messages":[{"role":"user","content":"'
        body += "x" * (mebibytes * 1024 * 1024 - 200) + '"}]}'
        return requests.post(url, headers=headers, data=body, timeout=60).status_code

    # 404 is Ollama's own answer: the body went all the way.
    assert (status(60), status(65)) == (404, 413)


def test_the_callers_key_stays_at_the_gateway(healed: LabUnderTest) -> None:
    """What a backend receives holds neither the key nor the caller's origin."""
    address = healed.state["hosts"]["gpu1"]["address"]
    recorder = (
        "import http.server as h\n"
        "class R(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        open('/run/headers', 'a').write(str(self.headers))\n"
        "        self.send_response(200); self.send_header('Content-Length', '2')\n"
        "        self.end_headers(); self.wfile.write(b'{}')\n"
        f"h.HTTPServer(('{address}', 11434), R).serve_forever()\n"
    )
    healed.ssh("gpu2", "systemctl stop ollama")
    healed.ssh("gpu1", "systemctl stop ollama")
    healed.ssh("gpu1", f"cat > /run/recorder.py <<'EOF'\n{recorder}\nEOF")
    healed.ssh("gpu1", "systemd-run --quiet --unit recorder python3 /run/recorder.py")
    try:
        key = _key(healed)
        deadline = time.monotonic() + 30
        while True:
            answer = requests.get(
                f"http://{healed.state['hosts']['edge']['address']}:8434/v1/models",
                headers={
                    "Authorization": f"Bearer {key}",
                    "X-Api-Key": key,
                    "Origin": "http://llm.example.com",
                },
                timeout=10,
            )
            if answer.status_code == 200:
                break
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.5)
        headers = healed.ssh("gpu1", "cat /run/headers")
    finally:
        healed.ssh("gpu1", "systemctl stop recorder")
    assert "Host: localhost" in headers
    assert key not in headers
    assert "example.com" not in headers
    assert "Authorization" not in headers


@pytest.fixture
def elsewhere(lab: LabUnderTest) -> Iterator[Path]:
    """The same fleet, seen from where gpu2 and the gateway's name cannot be reached."""
    inventory = Path("tests/lab/inventories/unreachable.py")
    store = store_of(ROOT / inventory, ROOT)
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(store_of(ROOT / LAB_INVENTORY, ROOT), store)
    lab.fleet("drain", LAB_INVENTORY, "gpu2")
    yield inventory
    lab.fleet("undrain", LAB_INVENTORY, "gpu2")
    shutil.rmtree(store)


def test_what_cannot_be_reached_is_told_once(
    lab: LabUnderTest, elsewhere: Path, tmp_path: Path
) -> None:
    """A dead host and a name without DNS are a failure each; a drained host is a warning."""
    report, junit = tmp_path / "report.html", tmp_path / "junit.xml"
    options = ["--json", "--html", report, "--junit", junit]
    result = lab.fleet("verify", elsewhere, *options, check=False)
    assert result.returncode == 1, result.stderr
    checks = json.loads(result.stdout)["checks"]
    by_outcome: dict[str, set[tuple[str, str]]] = {}
    for check in checks:
        for item in check["results"]:
            by_outcome.setdefault(item["outcome"], set()).add((check["claim"], item["host"]))
    assert by_outcome["failed"] == {
        ("This machine logs in to the host, and commands there are root's", "gpu2"),
        ("Clients find the gateway: its name, its port, a certificate that they trust", "edge"),
    }
    assert by_outcome["warned"] == {
        (_CONFIGURATION_CLAIM, "edge"),
        ("Every model from a registry is pinned by its digest, and has it", "gpu1"),
    }
    assert ("A streamed chat is answered, to its end", "edge") in by_outcome["unchecked"]
    assert ("Every declared model is present", "gpu2") in by_outcome["unchecked"]
    assert ("Every declared model is present", "gpu1") in by_outcome["held"]
    assert len(result.stderr.splitlines()) < 120
    table = result.stderr.partition(" compliance ")[2]
    # As this machine's resolver has it.
    unknown = r"llm\.example\.invalid has no address|whether llm\.example\.invalid exists"
    assert len(re.findall(unknown, table)) == 1
    assert _key(lab) not in result.stdout + report.read_text() + junit.read_text()

    checked = ["verify", LAB_INVENTORY, "--check-report", report]
    assert "signed by the store of inventory/lab.py" in lab.fleet(*checked).stdout
    report.write_bytes(report.read_bytes().replace(b"findings", b"good"))
    result = lab.fleet(*checked, check=False)
    assert result.returncode == 1
    assert "changed since it was signed" in result.stderr


def test_one_capability_of_one_host_is_verified(lab: LabUnderTest) -> None:
    """... and nothing of anybody else: a gateway's claims are about no GPU host."""
    result = lab.fleet("verify", LAB_INVENTORY, "gpu1", "--capability", "ollama", "--json")
    found = json.loads(result.stdout)
    assert {check["capability"] for check in found["checks"]} == {"reach", "ollama"}
    assert list(found["hosts"]) == ["gpu1"]
    nothing = lab.fleet("verify", LAB_INVENTORY, "edge", "--capability", "ollama", check=False)
    assert nothing.returncode == 2, nothing.stdout

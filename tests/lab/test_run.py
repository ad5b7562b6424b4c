"""A run over hosts that are not the lab's own: strange logins, silence, and other runs."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import network
from lab.state import find
from tests.lab.conftest import BIN, COMPILED, ROOT, LabUnderTest, Result

INVENTORY = Path("tests/lab/gpu.py")
# Parents that are not there, under a login's umask of 077.
AS_OPS = {"LAB_SETTINGS": '{"ollama_models_dir": "/data/llm/models"}', "LAB_USER": "ops"}
BASHRC = "/home/ops/.bashrc"

# Debian's sshd gives a session what is in that file, and so does systemd a service.
_LOCALE = (
    "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y locales >/dev/null"
    " && localedef -i de_DE -c -f UTF-8 de_DE.UTF-8"
    " && printf 'LANG=de_DE.UTF-8\\nLC_NUMERIC=de_DE.UTF-8\\n' > /etc/default/locale"
    " && systemctl daemon-reexec"
)
_SSHD = "/etc/ssh/sshd_config.d/sessions.conf"
_TCSH = (
    "apt-get -qq update && apt-get -qq install -y tcsh >/dev/null && usermod --shell /bin/tcsh ops"
)
_NO_SECURE_PATH = (
    "echo 'Defaults !secure_path' > /etc/sudoers.d/zz-path"
    f" && sed -i '1i export PATH=/usr/bin:/bin' {BASHRC}"
)


@pytest.fixture(scope="module")
def lab(bare_lab: LabUnderTest) -> LabUnderTest:
    """Hosts of which each has a login that is not as the lab's images have it, deployed."""
    bare_lab.ssh("gpu1", _LOCALE)
    bare_lab.ssh("gpu2", f"sed -i '1i umask 077' {BASHRC}")
    bare_lab.ssh("edge", _NO_SECURE_PATH)
    assert bare_lab.deploy(inventory=INVENTORY, **AS_OPS)
    return bare_lab


def test_another_login_makes_no_other_host(lab: LabUnderTest) -> None:
    """Neither the locale, nor the umask, nor the PATH of a login changes what a deploy does."""
    assert "," in lab.ssh("gpu1", "stat -c %.Z /"), "the host has no locale of its own"
    assert lab.ssh("gpu2", "su ops -s /bin/bash -c '. ~/.bashrc; umask'") == "0077"
    assert lab.ssh("gpu2", "stat -c %a /data /data/llm /etc/llm-fleet").split() == ["755"] * 3
    assert lab.deploy(inventory=INVENTORY, **AS_OPS) == {}
    assert lab.failing(inventory=INVENTORY, **AS_OPS) == {}


def test_a_login_that_cannot_be_used_is_named_with_its_fix(lab: LabUnderTest) -> None:
    """... one line a host, and nobody else's deploy ends by it."""
    lab.ssh("gpu1", f"cp {BASHRC} /root/; sed -i '1i echo Welcome to $(hostname)' {BASHRC}")
    lab.ssh("gpu2", _TCSH)
    try:
        result = lab.pyinfra("-y", inventory=INVENTORY, check=False, **AS_OPS)
        # Nobody is there to be asked whether to go on without the two.
        look = lab.pyinfra("--dry", inventory=INVENTORY, check=False, **AS_OPS)
        claims = lab.failing(inventory=INVENTORY, **AS_OPS)
        lab.ssh("edge", "mv /etc/sudoers.d/ops /root/")
        asked = lab.pyinfra("-y", "--limit", "edge", inventory=INVENTORY, check=False, **AS_OPS)
        lab.ssh("edge", "mv /root/ops /etc/sudoers.d/")
        lab.ssh("edge", f"echo MaxSessions 1 > {_SSHD}; systemctl reload ssh")
        one = lab.pyinfra("-y", "--limit", "edge", inventory=INVENTORY, check=False, **AS_OPS)
    finally:
        lab.ssh("edge", f"mv /root/ops /etc/sudoers.d/; rm -f {_SSHD}; systemctl reload ssh")
        lab.ssh("gpu2", "usermod --shell /bin/bash ops")
        lab.ssh("gpu1", f"cp /root/.bashrc {BASHRC}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    found = failed_hosts(result.stderr)
    assert list(found) == ["gpu1", "gpu2"]
    assert (look.returncode, failed_hosts(look.stderr)) == (1, found)
    assert found["gpu1"].startswith("the login of ops writes 'Welcome to gpu1' before what")
    assert found["gpu2"].startswith("the login shell of ops is /bin/tcsh, which")
    assert "edge" in re.sub(r"(?s).*Beginning operation run", "", result.stderr)
    assert {host for hosts in claims.values() for host in hosts} == {"gpu1", "gpu2"}
    assert failed_hosts(asked.stderr)["edge"].startswith("ops does not become root without being")
    assert "sshd allows no further session on a connection" in failed_hosts(one.stderr)["edge"]
    assert (asked.returncode, one.returncode) == (1, 1)


def test_a_host_that_falls_silent_is_named_and_the_others_go_on(lab: LabUnderTest) -> None:
    """Cut off in the middle of a step: no packet comes back, and none says that it will not."""
    lab.ssh("edge", "echo '# by a test' >> /etc/llm-fleet/gateway/nginx.conf")
    with deploying(lab, "gpu1") as run:
        began = time.monotonic()
        with cut_off(lab, "gpu1"):
            output = run.communicate(timeout=180)[0]
        took = time.monotonic() - began
    assert failed_hosts(output) == {
        "gpu1": "Models | Install the loader's unit: it does not answer any more; "
        "the connection was ended"
    }
    assert run.returncode == 1
    assert took < 90
    assert lab.ssh("edge", "tail -n 1 /etc/llm-fleet/gateway/nginx.conf") != "# by a test"


def test_a_lost_connection_is_called_so(lab: LabUnderTest) -> None:
    with deploying(lab, "gpu2") as run:
        lab.ssh("gpu2", "pkill -KILL -u ops sshd; pkill -KILL -u ops sshd-session; true")
        output = run.communicate(timeout=120)[0]
    assert failed_hosts(output) == {
        "gpu2": "Models | Install the loader's unit: the connection was lost"
    }


def test_a_drop_in_on_one_host_stops_that_host_alone(lab: LabUnderTest) -> None:
    """... in the dry run as in the deploy: a key that is taken back reaches the gateway."""
    folder = "/etc/systemd/system/ollama.service.d"
    lab.ssh("gpu1", f"mkdir -p {folder}; echo '[Service]' > {folder}/own.conf")
    lab.ssh("edge", "echo '# by a test' >> /etc/llm-fleet/gateway/nginx.conf")
    try:
        look = lab.pyinfra("--dry", inventory=INVENTORY, check=False, **AS_OPS)
        assert lab.ssh("edge", "tail -n 1 /etc/llm-fleet/gateway/nginx.conf") == "# by a test"
        done = lab.pyinfra("-y", inventory=INVENTORY, check=False, **AS_OPS)
    finally:
        lab.ssh("gpu1", f"rm -r {folder}; systemctl daemon-reload")
    for result in (look, done):
        assert result.returncode == 1
        [(host, why)] = failed_hosts(result.stderr).items()
        assert host == "gpu1"
        assert f"run there: rm {folder}/own.conf; the deploy then" in why
        assert "disable" not in why
    reloaded = "edge: nginx.service would be reloaded (/etc/llm-fleet/gateway/nginx.conf)"
    assert reloaded in look.stderr
    assert lab.ssh("edge", "tail -n 1 /etc/llm-fleet/gateway/nginx.conf") != "# by a test"


def test_a_deploy_that_is_called_off_is_none(lab: LabUnderTest) -> None:
    """... and says so, whoever or whatever gave the answer."""
    words = [BIN / "pyinfra", "--limit", "edge", INVENTORY, "deploy.py"]
    done = subprocess.run(
        words, cwd=ROOT, input="no\n", capture_output=True, text=True, check=False,
        env=os.environ | COMPILED | {"LLM_FLEET_LAB_ID": lab.id} | AS_OPS,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "--> Nothing was deployed" in done.stderr


def test_of_two_deploys_one_changes_nothing(lab: LabUnderTest) -> None:
    """... on any host, or the settings of the two would be mixed; and it says who is there."""
    other = {**AS_OPS, "LAB_SETTINGS": '{"ollama_keep_alive": "9m"}'}
    with deploying(lab, "gpu1") as first:
        before = lab.ssh("gpu2", "cat /etc/systemd/system/ollama.service")
        second = lab.pyinfra("-y", inventory=INVENTORY, check=False, **other)
        assert lab.ssh("gpu2", "cat /etc/systemd/system/ollama.service") == before
        # A look changes nothing, and is nobody's trouble.
        assert lab.pyinfra("--dry", inventory=INVENTORY, **other).returncode == 0
        first.kill()
        run = re.search(r"run ([0-9a-f]{8})", first.communicate()[0])
        assert run
        left = lab.ssh("gpu1", "ls /run/llm-fleet")
        # Freed by the death of the run that held it, without a wait.
        lab.deploy("--limit", "gpu2", inventory=INVENTORY, **AS_OPS)
    assert second.returncode == 1
    found = failed_hosts(second.stderr)
    assert list(found) == ["gpu1", "gpu2", "edge"]
    who = f"gpu1 by {me()}, run {run[1]} since 20"
    for why in found.values():
        assert f"nothing was changed on any host, another deploy is at work: {who}" in why
    assert f"stage-{run[1]}" in left.split()
    assert lab.deploy(inventory=INVENTORY, **AS_OPS)
    assert lab.ssh("gpu1", "ls /run/llm-fleet").split() == ["lock", "questions"]
    assert lab.deploy(inventory=INVENTORY, **AS_OPS) == {}


def test_a_deploy_by_force_ends_the_other_one_first(lab: LabUnderTest) -> None:
    """... with what that had the host do, so that two never work there at once."""
    with deploying(lab, "gpu1") as first:
        assert lab.ssh("gpu1", "pgrep -cfx 'sleep 1000'") == "1"
        lab.ssh("gpu1", "mv /usr/bin/systemd-analyze.real /usr/bin/systemd-analyze")
        began = time.monotonic()
        lab.deploy("--limit", "gpu1", inventory=INVENTORY, LLM_FLEET_FORCE="1", **AS_OPS)
        assert time.monotonic() - began < 200
        processes = lab.ssh("gpu1", "ps -ef --forest")
        assert "sleep 1000" not in processes, processes
        output = first.communicate(timeout=60)[0]
    assert first.returncode == 1
    assert "gpu1" in failed_hosts(output)
    assert record(lab, "gpu1")["deployed"]["who"] == me()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_deploy_ends_at_once_and_says_where_it_was(
    lab: LabUnderTest, number: signal.Signals
) -> None:
    with deploying(lab, "gpu1") as run:
        began = time.monotonic()
        run.send_signal(number)
        output = run.communicate(timeout=60)[0]
        assert time.monotonic() - began < 10
        # The lock is free, and the host knows that somebody has not come to an end.
        assert record(lab, "gpu1")["unfinished"]["who"] == me()
    assert run.returncode == 130
    assert f"--> Interrupted ({number.name}):" in output
    assert 'gpu1: cut off in "Models | Install the loader\'s unit"' in output
    again = lab.pyinfra("-y", inventory=INVENTORY, **AS_OPS)
    assert f"the deploy of {me()} (run " in again.stderr
    found = record(lab, "gpu1")
    assert (found["unfinished"], found["deployed"]["who"]) == (None, me())


def test_an_interrupted_pull_goes_on_by_itself(lab: LabUnderTest) -> None:
    slow = "/run/systemd/system/ollama-models.service.d"
    lab.ssh(
        "gpu1",
        f"mkdir -p {slow}; printf '[Service]\nExecStartPre=/bin/sleep 300\n' > {slow}/slow.conf;"
        " systemctl daemon-reload; curl -fsS -X DELETE"
        " http://$(hostname -I | cut -d' ' -f1):11434/api/delete -d '{\"model\":\"gpt-oss:20b\"}'",
    )
    try:
        with running(lab) as run:
            wait_until(lambda: "activating" in loader(lab), 120)
            time.sleep(3)
            run.send_signal(signal.SIGINT)
            output = run.communicate(timeout=10)[0]
        assert run.returncode == 130
        assert (
            "gpu1: ollama-models.service goes on by itself; look there with: journalctl" in output
        )
        assert "activating" in loader(lab)
    finally:
        lab.ssh("gpu1", f"rm -r {slow}; systemctl daemon-reload; systemctl stop ollama-models")
    lab.deploy(inventory=INVENTORY, **AS_OPS)


def loader(lab: LabUnderTest) -> str:
    return lab.ssh("gpu1", "systemctl show -p ActiveState --value ollama-models")


def test_a_command_without_an_end_ends_in_a_process_without_gevent(lab: LabUnderTest) -> None:
    """As in `make verify`, where pyinfra's own timeouts have no effect."""
    script = (
        "import sys; from pathlib import Path\n"
        "from fleet.capabilities import CAPABILITIES\n"
        "from fleet.declare.open import open_inventory\n"
        "host = open_inventory(Path(sys.argv[1]), CAPABILITIES)[0].inventory.get_host('gpu1')\n"
        "host.connect(raise_exceptions=True)\n"
        "host.run_shell_command('sleep 600', _timeout=2)\n"
    )
    began = time.monotonic()
    done = command(lab, BIN / "python", "-c", script, INVENTORY)
    assert time.monotonic() - began < 30
    assert "gpu1: a command did not end within 2 s; it may go on by itself" in done.stderr


def test_a_host_that_is_gone_can_be_drained(lab: LabUnderTest) -> None:
    """... which is when it is wanted: the gateways are asked, and all of them must answer."""
    with cut_off(lab, "gpu2"):
        for words in (("drain", INVENTORY, "gpu2"), ("undrain", INVENTORY, "gpu2", "--cold")):
            done = command(lab, BIN / "fleet", *words)
            assert done.returncode == 0, done.stderr


def test_proxy_of_this_machine_is_not_asked_for_private_addresses(lab: LabUnderTest) -> None:
    """As on a desk in an office: the proxy leads to the internet, and not into the fleet."""
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    answer = command(
        lab, BIN / "fleet", "chat", INVENTORY, "What is the capital of France?", **proxy
    )
    assert answer.returncode == 0, answer.stderr
    assert lab.failing(inventory=INVENTORY, **AS_OPS, **proxy) == {}


@contextmanager
def deploying(lab: LabUnderTest, waits_on: str) -> Iterator[subprocess.Popen[str]]:
    """A deploy in the middle of a step that does not end by itself; ended with the block."""
    # The step judges a unit file, here by a program that only waits.
    judge, real = "/usr/bin/systemd-analyze", "/usr/bin/systemd-analyze.real"
    lab.ssh(
        waits_on,
        "rm -f /run/began; echo >> /etc/systemd/system/ollama-models.service;"
        f" mv {judge} {real}; printf '#!/bin/sh\\ntouch /run/began; exec sleep 1000\\n' > {judge};"
        f" chmod 755 {judge}",
    )
    try:
        with running(lab) as process:
            wait_until(lambda: lab.ssh(waits_on, "ls /run/began", check=False) != "", 60)
            yield process
    finally:
        lab.ssh(waits_on, f"mv {real} {judge}; pkill -f '[s]leep 1000'; true")


@contextmanager
def running(lab: LabUnderTest, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A deploy, ended with the block."""
    process = subprocess.Popen(
        [BIN / "pyinfra", "-y", INVENTORY, "deploy.py"],
        cwd=ROOT,
        env=os.environ
        | COMPILED
        | {"LLM_FLEET_LAB_ID": lab.id, "PYINFRA_PROGRESS": "off"}
        | AS_OPS
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def record(lab: LabUnderTest, host: str) -> dict[str, Any]:
    """What the host keeps of its deploys."""
    files = {"deployed": "deployed.json", "unfinished": "deploying.json"}
    return {
        name: json.loads(lab.ssh(host, f"cat /etc/llm-fleet/{file}", check=False) or "null")
        for name, file in files.items()
    }


def me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def cut_off(lab: LabUnderTest, host: str) -> Iterator[None]:
    """No packet of `host` passes, in either direction, and nobody is told."""
    found = find(lab.id)
    assert found
    link = [*network.inside(found), "ip", "link", "set", f"vb-{host}"]
    subprocess.run([*link, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*link, "up"], check=True)
        wait_until(lambda: lab.ssh(host, "echo here", check=False) == "here", 60)


def failed_hosts(output: str) -> dict[str, str]:
    """Host to the reason that a run names at its end."""
    found = re.search(r"(?m)^--> Failed hosts:\n((?:    \S+: .*\n)*)", output)
    assert found, output[-4000:]
    lines = (line.strip() for line in found[1].splitlines())
    return dict(line.split(": ", 1) for line in lines)


def command(lab: LabUnderTest, *words: Path | str, **environment: str) -> Result:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"LLM_FLEET_LAB_ID": lab.id} | AS_OPS | environment,
    )  # fmt: skip


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.3)

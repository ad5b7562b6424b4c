"""Dify from a bare host to a chat, through upgrades, cuts and a restore elsewhere.

Slow, and with `make test-dify` only. In this order: each test goes on from where the one before
left the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import BIN, ROOT, LabUnderTest, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/dify_fleet.py")
STACK = "Dify | Run the containers as declared"
SETTINGS = "Dify | Install the settings"
ASK = "python3 /usr/local/lib/llm-fleet/dify_client.py chat /etc/llm-fleet/dify/client.json"
NEWER, BROKEN = "1.17.1", "1.17.2"


class Dify:
    """The host, its deploys, and its containers as one would look at them."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.name = "dify1"
        self.declared: dict[str, Any] = {}

    def ssh(self, command: str) -> str:
        """Standard output of a command on the host, which must succeed."""
        return self.lab.ssh(self.name, command)

    def deploy(self, **settings: Any) -> list[str]:
        """Converge with `settings`; the operations that changed something."""
        return list(self.lab.deploy(inventory=INVENTORY, **self._with(settings)))

    def failed(self, **settings: Any) -> str:
        """What a deploy says that must fail."""
        result = self.lab.pyinfra("-y", inventory=INVENTORY, check=False, **self._with(settings))
        assert result.returncode != 0, "did not fail"
        return result.stdout + result.stderr

    def failing(self, **settings: Any) -> list[str]:
        """The claims that fail."""
        return list(self.lab.failing(inventory=INVENTORY, **self._with(settings)))

    def fleet(self, *words: str) -> str:
        """What `fleet WORDS` prints, which must succeed."""
        environment = {"LLM_FLEET_LAB_ID": self.lab.id, **self._with({})}
        done = subprocess.run(
            [BIN / "fleet", *words], env=os.environ | environment, cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _with(self, settings: dict[str, Any]) -> dict[str, str]:
        return {"DIFY": json.dumps(self.declared | settings), "DIFY_HOST": self.name}

    @property
    def containers(self) -> dict[str, str]:
        """Service to its container and when it was started."""
        text = self.ssh(
            'docker inspect -f \'{{index .Config.Labels "com.docker.compose.service"}} {{.Id}} '
            "{{.State.StartedAt}}' $(docker ps -q)"
        )
        return dict(line.split(" ", 1) for line in text.splitlines())

    def sql(self, query: str) -> str:
        """What a query gives in Dify's database."""
        return self.ssh(
            "docker exec dify-db_postgres-1 sh -c 'PGPASSWORD=$POSTGRES_PASSWORD exec psql -U "
            f'postgres -At -d dify -c "{query}"\''
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """What no deploy, upgrade or restore may lose: accounts, apps, keys, and files."""
        return (
            self.sql("SELECT email FROM accounts"),
            self.sql("SELECT id, name FROM apps ORDER BY id"),
            self.sql("SELECT token FROM api_tokens ORDER BY token"),
            self.ssh("cd /var/lib/dify/volumes/app/storage && find . -type f ! -name '.init*' "
                     "-exec sha256sum {} + | sort"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def dify() -> Iterator[Dify]:
    """The host after its first deploy."""
    for lab in _lab("dify", "--hosts", "1", "--dify"):
        dify = Dify(lab)
        dify.deploy()
        yield dify


def test_bare_host_answers_a_chat(dify: Dify) -> None:
    assert dify.failing() == []
    assert "Paris" in dify.ssh(ASK)
    # The worker has a connection to the database of before; not told to look, it is silent.
    dify.ssh(
        "docker restart dify-db_postgres-1; until docker exec dify-db_postgres-1 pg_isready -q;"
        " do sleep .5; done"
    )
    assert "Paris" in dify.ssh(ASK)


def test_second_deploy_changes_and_restarts_nothing(dify: Dify) -> None:
    before = dify.containers
    assert dify.deploy() == []
    assert dify.containers == before


def test_a_changed_value_reaches_the_containers_that_read_it(dify: Dify) -> None:
    before = dify.containers
    assert STACK in dify.deploy(dify_env={"LOG_LEVEL": "DEBUG"})
    after = dify.containers
    assert after["api"] != before["api"]
    assert after["db_postgres"] == before["db_postgres"]
    env = dify.ssh("docker inspect -f '{{.Config.Env}}' dify-api-1")
    assert "LOG_LEVEL=DEBUG" in env
    # nginx had resolved the old one's address.
    assert "Paris" in dify.ssh(ASK)
    dify.deploy()
    assert dify.failing() == []


@pytest.mark.parametrize(
    "break_it",
    [
        "docker rm -f dify-worker-1 >/dev/null",
        "docker pause dify-api-1 dify-web-1 >/dev/null",
        "docker stop dify-redis-1 >/dev/null",
        "sed -i s/^SECRET_KEY=.*/SECRET_KEY=/ /var/lib/dify/releases/1.16.1/.env",
        "rm /var/lib/dify/releases/1.16.1/docker-compose.override.yaml",
    ],
    ids=["container removed", "paused by a backup that was killed", "stopped", ".env", "override"],
)
def test_what_was_broken_is_repaired(dify: Dify, break_it: str) -> None:
    dify.ssh(break_it)
    assert STACK in dify.deploy()
    assert dify.deploy() == []
    assert "Paris" in dify.ssh(ASK)


def test_reboot(dify: Dify) -> None:
    """Docker starts the containers in no order, and gives them other addresses than before."""
    dify.lab.ssh(dify.name, "systemctl reboot", check=False)
    ended = "systemctl show -p ExecMainExitTimestamp --value llm-fleet-dify-boot"
    time.sleep(5)
    _until(lambda: dify.lab.ssh(dify.name, ended, check=False))
    assert dify.ssh("systemctl show -p Result --value llm-fleet-dify-boot") == "success"
    assert "Paris" in dify.ssh(ASK)
    assert dify.failing() == []
    assert dify.deploy() == []


@pytest.mark.parametrize(
    "left",
    [
        "docker stop dify-api-1 dify-web-1 && docker start dify-web-1 dify-api-1",
        "docker stop dify-nginx-1",
    ],
    ids=["other addresses", "nginx down"],
)
def test_what_a_boot_may_leave_is_settled(dify: Dify, left: str) -> None:
    dify.ssh(left)
    dify.ssh("systemctl start llm-fleet-dify-boot")
    assert "Paris" in dify.ssh(ASK)
    assert dify.deploy() == []


def test_killed_deploy_converges(dify: Dify) -> None:
    """At moments of its work on the host, where a reboot or a killer may meet it."""
    dify.ssh("docker compose -p dify down -v 2>/dev/null; rm -rf /var/lib/dify")
    for seconds in (3, 8, 15):
        process = subprocess.Popen(
            [BIN / "pyinfra", "-y", INVENTORY, "deploy.py"],
            env=os.environ | {"LLM_FLEET_LAB_ID": dify.lab.id, **dify._with({})},
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _until(partial(_is_at_work, dify, process))
        time.sleep(seconds)
        dify.ssh("systemctl kill --signal KILL llm-fleet-dify.service 2>/dev/null || true")
        process.kill()
        process.wait()
    dify.deploy()
    assert dify.deploy() == []
    assert dify.failing() == []


def test_failed_upgrade_returns_to_the_backup(dify: Dify) -> None:
    before = dify.kept
    said = dify.failed(dify_version=BROKEN)
    assert f"the upgrade to {BROKEN} failed and was taken back, 1.16.1 runs as before" in said
    assert "api: ends again and again" in said
    assert "ModuleNotFoundError" in said, "no log of the service that failed"
    assert dify.kept == before
    assert "dify-api:1.16.1" in dify.ssh("docker inspect -f '{{.Config.Image}}' dify-api-1")
    assert dify.deploy() == [SETTINGS]
    assert dify.failing() == []


def test_upgrade_that_was_cut_off_is_finished(dify: Dify) -> None:
    before = dify.kept
    process = subprocess.Popen(
        [BIN / "pyinfra", "-y", INVENTORY, "deploy.py"],
        env=os.environ | {"LLM_FLEET_LAB_ID": dify.lab.id, **dify._with({"dify_version": NEWER})},
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _until(lambda: f'"to": "{NEWER}"' in dify.ssh("cat /var/lib/dify/state.json"))
    time.sleep(4)
    dify.ssh("systemctl kill --signal KILL llm-fleet-dify.service")
    process.kill()
    process.wait()
    dify.declared = {"dify_version": NEWER}
    assert STACK in dify.deploy()
    assert dify.kept == before
    assert "dify-api:1.17.1" in dify.ssh("docker inspect -f '{{.Config.Image}}' dify-api-1")
    assert dify.deploy() == []
    assert dify.failing() == []


def test_there_is_no_way_back_but_a_backup(dify: Dify) -> None:
    said = dify.failed(dify_version="1.16.1")
    assert "Dify 1.17.1 runs, and a database does not go back to 1.16.1" in said
    assert dify.deploy() == [SETTINGS]


def test_backup_is_put_back_on_a_bare_host(dify: Dify, tmp_path: Path) -> None:
    before = dify.kept
    # What a container may leave where it writes.
    dify.ssh("mkfifo /var/lib/dify/volumes/sandbox/dependencies/pipe; "
             "ln -s /etc /var/lib/dify/volumes/sandbox/dependencies/etc")  # fmt: skip
    archive = dify.fleet("dify", "backup", str(INVENTORY), "dify1", "--to", str(tmp_path))
    assert oct(Path(archive).stat().st_mode)[-3:] == "600"
    damaged = Path(archive).with_name("damaged.tar")
    whole = Path(archive).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])  # a tar's last kilobytes are padding
    # Another host of another name, on which there is nothing yet.
    dify.name = "gpu1"
    with pytest.raises(AssertionError, match=r"no backup of Dify|is damaged"):
        dify.fleet("dify", "restore", str(INVENTORY), "gpu1", str(damaged))
    dify.fleet("dify", "restore", str(INVENTORY), "gpu1", archive)
    dify.deploy()
    assert dify.kept == before
    owners = dify.ssh("find /var/lib/dify/volumes/app/storage -printf '%U:%G\\n' | sort -u")
    assert owners == "1001:1001"
    kept = dify.ssh("cd /var/lib/dify/volumes/sandbox/dependencies && find . ! -type d")
    assert kept == "./etc"
    assert dify.deploy() == []
    assert dify.failing() == []


def _is_at_work(dify: Dify, process: subprocess.Popen[bytes]) -> bool:
    """Whether the host works, or the deploy has ended: a cut may have left nothing to do."""
    active = dify.lab.ssh("dify1", "systemctl is-active llm-fleet-dify.service", check=False)
    return process.poll() is not None or active == "active"


def _until(holds: Any, seconds: float = 480) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)

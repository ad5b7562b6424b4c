"""A host that others have used before: their ports, their directories, and links to other disks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.kit.listeners import is_own
from tests.lab.conftest import LabUnderTest, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
# The gateway would be deployed without it.
GPU = ("--limit", "gpu1")
LINKED = {"ollama_models_dir": "/data/llm/models"}
# Answers 200 to whatever is asked, as another Ollama would.
_STRANGER = """
use IO::Socket::INET;
my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => $ARGV[0], ReuseAddr => 1) or die "$!";
while (my $c = $s->accept) {
    while (<$c>) { last if /^\\r?$/ }
    print $c "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}";
    close $c;
}
"""


class Hosts:
    """A GPU host and a gateway."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.address = lab.state["hosts"]["gpu1"]["address"]

    def ssh(self, command: str, *, host: str = "gpu1", check: bool = True) -> str:
        """Standard output of a command on a host."""
        return self.lab.ssh(host, command, check=check)

    def deploy(self, **settings: Any) -> dict[str, list[str]]:
        """Converge, through a login with sudo; the operations that changed something."""
        return self.lab.deploy(inventory=INVENTORY, LAB_USER="ops", **_given(settings))

    def refused(self, *args: str, **settings: Any) -> str:
        """What a deploy says that must fail."""
        result = self.lab.pyinfra("-y", *args, inventory=INVENTORY, check=False, **_given(settings))
        assert result.returncode != 0, "not refused"
        return result.stdout + result.stderr

    def failing(self, **settings: Any) -> dict[str, list[str]]:
        """The claims that fail."""
        return self.lab.failing(inventory=INVENTORY, **_given(settings))

    def start_stranger(self, where: str, host: str) -> None:
        """Listen on an address in a unit of somebody else's."""
        self.lab.ssh(host, f"cat > /run/stranger.pl <<'E'\n{_STRANGER}\nE")
        self.lab.ssh(host, f"systemd-run -q --unit stranger perl /run/stranger.pl {where}")
        port = where.rpartition(":")[2]
        self.lab.ssh(host, f"n=0; until ss -Hltn | grep -q ':{port} '; do n=$((n + 1));"
                           " [ $n -lt 50 ] || exit 1; sleep 0.1; done")  # fmt: skip

    @property
    def process(self) -> str:
        """Ollama's process, and how often it was started by itself."""
        return self.ssh("systemctl show -p MainPID -p NRestarts -p ActiveState ollama.service")


def _given(settings: dict[str, Any]) -> dict[str, str]:
    return {"LAB_SETTINGS": json.dumps({"ollama_models": ["gpt-oss:20b"], **settings})}


@pytest.fixture(scope="module")
def bare() -> Iterator[Hosts]:
    """Hosts on which nothing of ours is yet."""
    for lab in _lab("others", "--hosts", "2"):
        yield Hosts(lab)


@pytest.fixture
def unchanged(bare: Hosts) -> Iterator[Hosts]:
    """The same, for a refusal that must change nothing."""
    yield bare
    for host in ("gpu1", "edge"):
        assert bare.ssh("ls -d /etc/llm-fleet /opt/ollama 2>/dev/null; true", host=host) == ""
    assert bare.ssh("getent passwd ollama; true") == ""


class TestRefusedBeforeAnything:
    def test_ports_that_somebody_has(self, unchanged: Hosts) -> None:
        """Each host by itself, in one run."""
        unchanged.start_stranger("0.0.0.0:11434", "gpu1")
        unchanged.start_stranger("0.0.0.0:8434", "edge")
        said = unchanged.refused()
        unchanged.ssh("systemctl stop stranger")
        unchanged.ssh("systemctl stop stranger", host="edge")
        for what in ("gpu1: ollama_port = 11434", "edge: gateway_port = 8434"):
            assert re.search(
                rf"{what}: perl \(process \d+ of stranger\.service\) listens on it already\. Stop "
                "it there, or declare another port",
                said,
            )

    def test_snaps(self, unchanged: Hosts) -> None:
        unit = "/etc/systemd/system/snap.ollama.listener.service"
        unchanged.ssh(f"echo '[Service]' > {unit}")
        said = unchanged.refused(*GPU)
        unchanged.ssh(f"rm {unit}")
        assert "gpu1: Ollama was installed here as a snap" in said
        unit = "/etc/systemd/system/snap.docker.dockerd.service"
        unchanged.ssh(f"echo '[Service]' > {unit}")
        said = unchanged.refused(*GPU, docker_enabled=True, docker_source="distribution")
        unchanged.ssh(f"rm {unit}")
        assert "gpu1: Docker was installed here as a snap" in said

    def test_directories_of_others(self, unchanged: Hosts) -> None:
        unchanged.ssh(
            "mkdir -p /srv/db && echo x > /srv/db/table && chown -R games: /srv/db;"
            " ln -s /etc /srv/link; ln -s /gone /srv/gone; stat -c '%U %a' /etc > /run/before"
        )
        for path, words in {
            "/srv/db": "/srv/db: belongs to games; if it is meant, run there: chown ollama:",
            "/srv/link": "/srv/link (which is /etc): belongs to root and holds ",
            "/srv/gone/models": "/srv/gone is a link that leads nowhere; mount what it leads to",
        }.items():
            said = unchanged.refused(*GPU, ollama_models_dir=path)
            assert f"gpu1: ollama_models_dir = {path}" in said
            assert words in said
            assert "Traceback" not in said
        unchanged.ssh('[ "$(stat -c \'%U %a\' /etc)" = "$(cat /run/before)" ]; rm -rf /srv/*')


@pytest.fixture(scope="module")
def hosts(bare: Hosts) -> Hosts:
    """The fleet after its first deploy: what is ours lies on another disk, behind links."""
    bare.ssh(
        "mkdir -p /big/ollama /big/opt /big/etc /big/data && ln -s /big/ollama /var/lib/ollama"
        " && ln -s /big/opt /opt/ollama && ln -s /big/etc /etc/llm-fleet && rm -rf /data"
        " && ln -s /big/data /data"
    )
    assert bare.deploy()
    return bare


def test_links_to_directories_are_taken(hosts: Hosts) -> None:
    assert hosts.failing() == {}
    assert hosts.deploy() == {}
    assert hosts.ssh("ls /big/ollama/models") == "blobs\nmanifests"
    assert hosts.ssh("stat -c '%U %a' /big/ollama /big/ollama/models") == "ollama 750\nollama 755"


def test_models_move_while_one_is_missing(hosts: Hosts) -> None:
    """The loader is started anew in its new unit, in the deploy that moves the directory."""
    assert hosts.deploy(**LINKED)
    assert hosts.failing(**LINKED) == {}
    assert hosts.deploy(**LINKED) == {}
    assert hosts.ssh("stat -c '%U %a' /big/data/llm /data/llm/models") == "root 755\nollama 755"


def test_what_does_not_start_is_tried_beside_what_runs(hosts: Hosts) -> None:
    before, units = hosts.process, hosts.ssh("cat /etc/systemd/system/ollama.service")
    said = hosts.refused(**LINKED, ollama_env={"GOMEMLIMIT": "lots"})
    assert "malformed GOMEMLIMIT" in said
    assert "gpu1: Ollama does not answer with what is declared for ollama.service" in said
    assert hosts.process == before
    assert hosts.ssh("cat /etc/systemd/system/ollama.service") == units
    assert hosts.ssh("ls -d /run/systemd/system/*trial* 2>/dev/null; true") == ""
    assert hosts.ssh("systemctl list-units --all --plain --no-legend '*trial*' '*.failed'") == ""
    assert hosts.deploy(**LINKED) == {}
    # Root's alone, which a trial on any other port would not notice.
    assert "bind: permission denied" in hosts.refused(**LINKED, ollama_port=80)
    assert hosts.process == before
    hosts.deploy(**LINKED)


def test_health_is_the_units_own_process(hosts: Hosts) -> None:
    own = is_own("ollama.service", 11434).get_raw_value()
    assert hosts.ssh(f"( {own} ) && echo own") == "own"
    hosts.ssh("systemctl stop ollama-models.service ollama.service")
    hosts.start_stranger(f"{hosts.address}:11434", "gpu1")
    said = hosts.ssh(f"( {own} ) 2>&1; true")
    assert "|perl|stranger.service|" in said
    assert "ollama.service does not listen on port 11434 itself" in said
    claim = "What listens on a declared port is what was started for it"
    assert hosts.failing(**LINKED)[claim] == ["gpu1"]
    assert "gpu1: ollama_port = 11434: perl" in hosts.refused(**LINKED)
    hosts.ssh("systemctl stop stranger")
    hosts.deploy(**LINKED)
    assert hosts.failing(**LINKED) == {}


def test_root_does_nothing_where_the_service_can_turn_the_way(hosts: Hosts) -> None:
    """The user of the service puts a link, and a FIFO, where root will look."""
    hosts.ssh(
        "stat -c '%U %a %Z' /etc > /run/before; cd /var/lib/ollama && runuser -u ollama -- sh -c"
        " 'mv models mine && ln -s /etc models'"
    )
    said = hosts.refused()
    assert "(which is /etc): the way there has a link of ollama, who could turn it" in said
    hosts.ssh('[ "$(stat -c \'%U %a %Z\' /etc)" = "$(cat /run/before)" ]')
    manifest = "/var/lib/ollama/models/manifests/registry.ollama.ai/library/gpt-oss/20b"
    hosts.ssh(
        "cd /var/lib/ollama && runuser -u ollama -- sh -c 'rm models && mv mine models"
        f" && find models/manifests -name 20b -exec rm {{}} + ; mkdir -p {Path(manifest).parent}"
        f" && mkfifo {manifest} models/pipe'"
    )
    hosts.deploy()
    assert hosts.failing() == {}

"""Open WebUI from a bare host to a chat: its traps, its backup and the way back.

With `make test-dify`. In this order: each test goes on from where the one before left the host.
The image is the lab's (lab/dify/open_webui.py); Docker, the gateway and the answer are real.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from fleet.declare.stores import store_of
from tests.lab.conftest import ROOT, LabUnderTest, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/webui_fleet.py")
RUN = "Open WebUI | Run Open WebUI as declared"
OPEN = {
    "Nobody can sign up, and all have to log in",
    "The administrator's account is made, with the password of the secrets store",
    "Nothing is published but Open WebUI's pages, and at the declared address",
    "The container writes its volumes only, and has no capability",
    "The newest backup is whole, root's alone, and not older than declared",
    "Open WebUI's settings and units on the host are the declared ones, its secrets root's",
}
MODELS = "The models that Open WebUI lists are the fleet's"
RESTORE = """set -e
cd /var/backups/llm-fleet-webui
python3 /usr/local/lib/llm-fleet/webui_backup.py /etc/llm-fleet/webui/backup.json --restore %s
"""


class Page:
    """The host, its deploys, and Open WebUI as a browser of the lab's controller asks it."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.url = f"http://{lab.state['hosts']['dify1']['address']}:8380"
        store = store_of(ROOT / INVENTORY, ROOT)
        self.admin = {
            "email": "admin@fleet.internal",
            "password": (store / "webui_dify1_admin_password").read_text().strip(),
        }

    def ssh(self, command: str) -> str:
        """Standard output of a command on the host, which must succeed."""
        return self.lab.ssh("dify1", command)

    def deploy(self, **settings: Any) -> list[str]:
        """Converge with `settings`; the operations that changed something."""
        return list(self.lab.deploy(inventory=INVENTORY, WEBUI=json.dumps(settings)))

    def failing(self, **settings: Any) -> set[str]:
        """The claims of Open WebUI that fail."""
        return set(self.lab.failing(inventory=INVENTORY, WEBUI=json.dumps(settings)))

    def ask(self, path: str, body: Any = None, token: str = "") -> requests.Response:
        """Get, or post `body`."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        method = "GET" if body is None else "POST"
        return requests.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=60)

    def token(self, email: str = "", password: str = "") -> str:
        """What somebody is let in with; the administrator, unless told otherwise."""
        account = {"email": email, "password": password} if email else self.admin
        answer = self.ask("/api/v1/auths/signin", account)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    def listed(self, token: str) -> list[str]:
        """The models that somebody sees."""
        return [model["id"] for model in self.ask("/api/models", token=token).json()["data"]]

    def restart(self) -> None:
        """Start the container anew, and wait for it."""
        self.ssh("systemctl restart llm-fleet-webui")
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + 30
        while True:
            try:
                if self.ask("/health").status_code == 200:
                    return
            except requests.ConnectionError:
                assert time.monotonic() < end, self.ssh("journalctl -u llm-fleet-webui -n 20")
            time.sleep(0.3)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Bare hosts after a deploy."""
    for lab in _lab("webui", "--hosts", "1", "--dify"):
        lab.deploy(inventory=INVENTORY)
        yield Page(lab)


def test_complies_and_a_second_deploy_changes_nothing(page: Page) -> None:
    assert page.failing() == set()
    assert page.deploy() == []


def test_no_secret_is_in_a_list_of_processes_or_in_a_unit(page: Page) -> None:
    key = page.ssh("sed -n s/^OPENAI_API_KEY=//p /etc/llm-fleet/webui/environment")
    assert key.startswith("sk-")
    shown = page.ssh(
        "ps axww -o args; systemctl cat llm-fleet-webui; systemctl show llm-fleet-webui"
    )
    assert "docker run" in shown
    assert key not in shown
    assert page.admin["password"] not in shown


def test_models_of_the_image_are_in_the_volume(page: Page) -> None:
    """A folder of the host's in its place would hide them, and nothing is fetched."""
    models = "/app/backend/data/cache/embedding/models"
    assert page.ssh(f"docker exec llm-fleet-webui ls {models}") == "all-MiniLM-L6-v2"


def test_user_that_is_added_sees_the_models(page: Page) -> None:
    user = {"name": "U", "email": "u@fleet.internal", "password": "of-a-user", "role": "user"}
    assert page.ask("/api/v1/auths/add", user, page.token()).status_code == 200
    assert page.listed(page.token("u@fleet.internal", "of-a-user")) == ["gpt-oss:20b"]
    time.sleep(1.5)  # the gateway's log is written once a second
    log = page.lab.ssh("gpu1", "cat /var/log/llm-fleet/gateway.log").splitlines()
    asked = [entry for line in log if (entry := json.loads(line))["key"] == "webui"]
    assert (asked[-1]["path"], asked[-1]["status"]) == ("/v1/models", 200), asked[-1]


def test_what_is_changed_on_its_pages_does_not_outlive_a_start(page: Page) -> None:
    """Another connection, as a person could set it there: the declared one counts again."""
    elsewhere = {"OPENAI_API_BASE_URLS": ["http://127.0.0.1:9/v1"], "OPENAI_API_KEYS": ["x"]}
    assert page.ask("/openai/config/update", elsewhere, page.token()).status_code == 200
    # It is healthy, and answers 200 with nothing in it.
    assert page.ask("/health").status_code == 200
    assert page.failing() >= {MODELS}
    page.restart()
    assert page.listed(page.token()) == ["gpt-oss:20b"]


def test_each_check_fails_once(page: Page) -> None:
    page.ssh("systemctl stop llm-fleet-webui")
    volume = page.ssh("docker volume inspect --format '{{.Mountpoint}}' llm-fleet-webui")
    page.ssh(f"cp -a {volume} /root/aside; rm {volume}/webui.db*")
    # Nobody is there yet: whoever comes first is the administrator.
    page.ssh(
        "sed -i '/WEBUI_ADMIN/d; s/^ENABLE_SIGNUP=.*/ENABLE_SIGNUP=True/'"
        " /etc/llm-fleet/webui/environment;"
        " sed -i 's/--read-only //; s/8380:8080/8380:8080 --publish 8381:8080/'"
        " /etc/systemd/system/llm-fleet-webui.service; systemctl daemon-reload;"
        " systemctl start llm-fleet-webui; truncate -s -1 /var/backups/llm-fleet-webui/*.tar"
    )
    page.wait()
    assert page.failing() >= OPEN
    stranger = {"name": "S", "email": "s@elsewhere.example", "password": "first"}
    assert page.ask("/api/v1/auths/signup", stranger).json()["role"] == "admin"
    page.ssh(
        f"systemctl stop llm-fleet-webui; rm {volume}/webui.db*; cp -a /root/aside/. {volume}/;"
        " rm /var/backups/llm-fleet-webui/*"
    )
    assert RUN in page.deploy()
    assert page.failing() == set()


def test_backup_is_put_back(page: Page) -> None:
    """What was there when it was made is there again, and what came later is not.

    No upload stops a backup, and what lies behind a link in the volume is in none.
    """
    volume = page.ssh("docker volume inspect --format '{{.Mountpoint}}' llm-fleet-webui")
    page.ssh(
        f"mkdir -p {volume}/uploads; printf 'SQLite format 3\\0 and then not' > {volume}/uploads/a;"
        f" mkfifo {volume}/uploads/pipe; ln -s /etc {volume}/uploads/etc;"
        " rm /var/backups/llm-fleet-webui/*; systemctl start llm-fleet-webui-backup"
    )
    archive = page.ssh("basename /var/backups/llm-fleet-webui/*.tar")
    later = {"name": "L", "email": "l@fleet.internal", "password": "came-later", "role": "user"}
    assert page.ask("/api/v1/auths/add", later, page.token()).status_code == 200
    listed = page.ssh(f"tar -tf /var/backups/llm-fleet-webui/{archive}")
    assert {"uploads/a", "uploads/etc"} <= set(listed.splitlines())
    assert "uploads/etc/" not in listed
    page.ssh(f"rm {volume}/uploads/*")
    page.ssh(RESTORE % archive)
    assert page.ssh(f"head -c 13 {volume}/uploads/a; readlink {volume}/uploads/etc") == (
        "SQLite format/etc"
    )
    page.wait()
    assert page.listed(page.token("u@fleet.internal", "of-a-user")) == ["gpt-oss:20b"]
    account = {"email": later["email"], "password": later["password"]}
    assert page.ask("/api/v1/auths/signin", account).status_code == 400
    assert page.failing() == set()


def test_back_after_a_reboot(page: Page) -> None:
    booted = page.ssh("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestamp")
    page.lab.ssh("dify1", "systemctl reboot", check=False)
    time.sleep(5)
    page.wait()
    now = page.ssh("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestamp")
    assert now != booted
    assert page.listed(page.token()) == ["gpt-oss:20b"]

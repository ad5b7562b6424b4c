"""A fleet's own directory, made of the wheel, whose inventory is the lab's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyrage
import yaml

from tests.installed import build_wheel, lend_packages, run
from tests.lab.conftest import BIN, LAB_INVENTORY, ROOT, LabUnderTest


class OperatorSite:
    """What an operator has who has never seen the checkout; secrets are encrypted to them."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        self.root = folder / "site"
        environment = folder / "environment"
        wheel = build_wheel(folder)
        run([sys.executable, "-m", "venv", environment], folder)
        run([environment / "bin" / "pip", "install", "--no-deps", "--no-index", wheel], folder)
        lend_packages(environment)
        run([environment / "bin" / "fleet", "init", self.root], folder)
        (self.root / ".venv").symlink_to(environment)
        # The lab says where its hosts are, and the pipeline how one logs in to them.
        text = LAB_INVENTORY.read_text()
        for key in ("ssh_key", "ssh_known_hosts_file"):
            text, found = re.subn(rf'(?m)^ *"{key}": .*\n', "", text)
            assert found == 1, "the pipeline's own way to log in would not be tried"
        (self.root / "inventory" / "prod.py").write_text(text)
        (self.root / ".lab").symlink_to(ROOT / ".lab")
        (self.root / "group_data" / "prod.py").unlink()
        identity = pyrage.x25519.Identity.generate()
        key = folder / "deploy_key"
        shutil.copy(lab.state["ssh_key"], key)
        self.environment = {
            "HOME": str(folder / "home"),
            "LLM_FLEET_LAB_ID": lab.id,
            "PYINFRA_PROGRESS": "off",
            "FLEET_AGE_KEY": str(identity),
            "DEPLOY_SSH_KEY": str(key),
            "KNOWN_HOSTS": lab.state["known_hosts"],
        }
        exported = subprocess.run(
            [BIN / "fleet", "secrets", "export", LAB_INVENTORY],
            env=os.environ | self.environment, cwd=ROOT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        subprocess.run(
            [self.root / ".venv" / "bin" / "fleet", "secrets", "import", "inventory/prod.py"],
            env=os.environ | self.environment, cwd=self.root, input=exported, check=True,
        )  # fmt: skip
        recipient = str(identity.to_public())
        self.run("fleet", "secrets", "init", "inventory/prod.py", "--age", recipient)

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of the site's environment, which must succeed."""
        return run([self.root / ".venv" / "bin" / program, *words], self.root, **self.environment)

    def login(self) -> tuple[str, ...]:
        """Options of pyinfra that log in without an agent."""
        key, hosts = self.environment["DEPLOY_SSH_KEY"], self.environment["KNOWN_HOSTS"]
        return ("--data", f"ssh_key={key}", "--data", f"ssh_known_hosts_file={hosts}")

    def pyinfra(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`pyinfra INVENTORY deploy.py WORDS`, logged in by key."""
        return self.run("pyinfra", "-y", "inventory/prod.py", "deploy.py", *self.login(), *words)

    def deploy(self, *words: str) -> dict[str, list[str]]:
        """Converge; each operation that changed something, and where."""
        result = self.pyinfra("--json", *words)
        operations = json.loads(result.stdout)["results"]["operations"]
        return {item["name"]: item["success"] for item in operations if item["success"]}

    def pipeline(self) -> dict[str, str]:
        """Run every job of the pipeline that `fleet init` wrote; what each has said.

        What it installs is here already.
        """
        pipeline = yaml.safe_load((self.root / "pipeline.gitlab-ci.yml").read_text())
        before = [line for line in pipeline["default"]["before_script"] if ".venv" not in line]
        end = '[ -z "$SSH_AGENT_PID" ] || kill "$SSH_AGENT_PID"'
        said = {}
        for name, job in pipeline.items():
            if name not in {"default", "stages"}:
                # One shell, which ends with what fails first: as a runner has it.
                script = "\n".join([f"trap {shlex.quote(end)} EXIT", *before, *job["script"]])
                result = run(["sh", "-ec", script], self.root, **self.environment)
                said[name] = result.stdout + result.stderr
        return said

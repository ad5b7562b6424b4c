"""A machine that something is measured on: this one, or a host of the lab."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lab import hosts
from lab.state import Lab, LabError

_PACKAGES = {"wrk": "wrk", "python3": "python3", "nginx": "nginx libnginx-mod-http-lua"}
_ENDS = 10.0  # seconds in which an nginx ends its workers, or is killed


@dataclass(frozen=True)
class Place:
    """`login` are the words before a command that is run there."""

    name: str
    login: tuple[str, ...]

    def run(self, command: str, stdin: str = "") -> str:
        """What `command`, a line of sh, prints; it must succeed."""
        done = subprocess.run(
            [*self.login, command], input=stdin, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise LabError(f"{self.name}: {command}: {done.stderr or done.stdout}")
        return done.stdout

    def install(self, *programs: str) -> None:
        """Have `programs` there, from the distribution's packages."""
        for program in programs:
            package = _PACKAGES[program]
            install = f"apt-get -qq update && apt-get -qq install -y {package} >/dev/null"
            self.run(f"command -v {program} >/dev/null || ({install})")

    @contextmanager
    def nginx(self, folder: str, files: Mapping[str, str]) -> Iterator[None]:
        """One nginx, with `files` (name to text) in `folder` and its pid in nginx.pid there."""
        # Keys are in them; what the workers read later is of their group.
        self.run(f"rm -rf {folder}; install -d -m 2750 -g www-data {folder}")
        self.run(f"install -d -m 750 -o www-data -g www-data {folder}/state")
        for name, text in files.items():
            self.run(f"umask 027; cat > {folder}/{name}", text)
        # A connection is two open files, and there are a thousand.
        self.run(f"ulimit -n $(ulimit -H -n); nginx -c {folder}/nginx.conf")
        try:
            yield
        except LabError as error:
            if logged := self.run(f"tail -n 5 {folder}/error.log"):
                raise LabError(f"{error}\n{folder}/error.log: {logged}") from None
            raise
        finally:
            # It may have died: then there is nothing to end.
            self.run(f"kill $(cat {folder}/nginx.pid 2>/dev/null) 2>/dev/null; true")
            self._wait(folder)
            self.run(f"rm -rf {folder}")

    def _wait(self, folder: str) -> None:
        end = time.monotonic() + _ENDS
        while self.run(f"test -e {folder}/nginx.pid && echo there; true"):
            if time.monotonic() > end:
                self.run(f"kill -9 $(cat {folder}/nginx.pid) 2>/dev/null; rm {folder}/nginx.pid")
            time.sleep(0.1)


HERE = Place("this machine", ("sh", "-c"))


def lab_host(lab: Lab, name: str) -> Place:
    """The lab's host of this name."""
    return Place(name, tuple(hosts.ssh(lab, name)))

"""Where a lab keeps its things, what its hosts are called, and the locks that keep labs apart.

Everything a lab owns is found from its id alone (a directory, a control group, a number that
names its interfaces and subnets), so that a later command can clean up after a killed one.
"""

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

STATE = Path("/var/lib/llm-fleet-lab")
CACHE = Path("/var/cache/llm-fleet-lab")
LOCKS = Path("/run/lock/llm-fleet-lab")
CHECKOUT = Path(__file__).resolve().parent.parent

MAX_HOSTS = 20
USERS = ("root", "ops")


class LabError(click.ClickException):
    """What went wrong and what to do about it, in one sentence."""


@dataclass(frozen=True)
class Host:
    """One host of the plan: its name, its groups and the last part of its addresses."""

    name: str
    groups: tuple[str, ...]
    index: int


# gpu hosts take .11, .12 ...; the gateway .10: a host keeps its address whatever --hosts says.
EDGE = Host("edge", ("gateway",), 10)
DIFY = Host("dify1", ("dify",), 9)


def plan(count: int, *, dify: bool = False) -> list[Host]:
    """Return the hosts of a lab of `count`: gpu1, gpu2 ... and edge; a single one is both.

    With `dify` one more, for Dify.
    """
    if count == 1:
        hosts = [Host("gpu1", ("gpu", "gateway"), 11)]
    else:
        hosts = [Host(f"gpu{i}", ("gpu",), 10 + i) for i in range(1, count)] + [EDGE]
    return [*hosts, *([DIFY] if dify else [])]


def every_host() -> list[Host]:
    """Return all hosts that a lab can have."""
    return plan(MAX_HOSTS, dify=True)


@dataclass(frozen=True)
class Lab:
    """One lab. `number` (0 to 255) was allocated to it alone on this machine."""

    id: str
    number: int

    @property
    def root(self) -> Path:
        """The directory of all its files but the cached images."""
        return STATE / self.id

    @property
    def ssh_key(self) -> Path:
        """The private key that root and ops of every host accept."""
        return self.root / "ssh_key"

    @property
    def known_hosts(self) -> Path:
        """The hosts' own keys, for strict checking."""
        return self.root / "known_hosts"

    @property
    def link(self) -> str:
        """The lab's one interface in the machine's own network namespace."""
        return f"llmlab{self.number}"

    def host_dir(self, name: str) -> Path:
        """The directory of one host: its disk, its record and its console log."""
        return self.root / "hosts" / name

    def address(self, index: int) -> str:
        """The IPv4 address with this last part."""
        return str(ipaddress.ip_network(f"10.77.{self.number}.0/24")[index])

    def address6(self, index: int) -> str:
        """The IPv6 address with this last part."""
        return str(ipaddress.ip_network(f"fd77:0:0:{self.number:x}::/64")[index])

    @property
    def json_path(self) -> Path:
        """What the inventory reads; another lab of the same checkout has its own folder."""
        folder = CHECKOUT / ".lab"
        return (folder if self.id == default_id() else folder / self.id) / "lab.json"

    def read(self, name: str) -> dict[str, Any]:
        """Return the record `name` of this lab, empty when there is none."""
        return read_json(self.root / f"{name}.json")

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace the record `name` of this lab."""
        write_json(self.root / f"{name}.json", value)


def default_id() -> str:
    """Return the id of this checkout's lab: stable, and another one for another checkout."""
    return hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]


def checked_id(value: str | None) -> str:
    """Return the id asked for (it becomes a directory's name) or this checkout's own."""
    if value and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,23}", value):
        raise LabError(f"{value!r} is no lab id: use up to 24 of a-z, 0-9 and '-'.")
    return value or default_id()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty when the file is missing."""
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file in one step, mode 0600: a reader sees the old or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(value, indent=2) + "\n")
    new.replace(path)


_held: set[int] = set()  # the locks this process holds, as file descriptors


def run(argv: Sequence[str | Path], stdin: str | None = None, check: bool = True) -> str:
    """Run a program and return what it printed; its own words become the error.

    It shares our locks: when we are killed, the next command waits for it to end, and cleans up
    after it too.
    """
    result = subprocess.run(
        [str(part) for part in argv],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=tuple(_held),
    )
    if check and result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip())[-2000:]
        shown = " ".join(str(part) for part in argv)
        raise LabError(f"`{shown}` failed ({result.returncode}): {words}")
    return result.stdout


@contextlib.contextmanager
def lock(name: str, waiting: str) -> Iterator[None]:
    """Hold a machine-wide lock. The kernel frees it when its holders die, however they die."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        _held.add(file.fileno())
        try:
            yield
        finally:
            _held.discard(file.fileno())


def allocate(lab_id: str) -> Lab:
    """Return the lab of this id, with a number no other lab and no route of the machine has."""
    with lock("machine", "waiting for another lab's allocation"):
        labs = read_json(STATE / "labs.json")
        if lab_id not in labs:
            labs[lab_id] = {"number": _free_number(labs), "checkout": str(CHECKOUT)}
            write_json(STATE / "labs.json", labs)
    return Lab(lab_id, labs[lab_id]["number"])


def find(lab_id: str) -> Lab | None:
    """Return the lab of this id when there is one."""
    entry = read_json(STATE / "labs.json").get(lab_id)
    return Lab(lab_id, entry["number"]) if entry else None


def forget(lab: Lab) -> None:
    """Give the lab's number and its files back."""
    shutil.rmtree(lab.root, ignore_errors=True)
    lab.json_path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lab.json_path.parent.rmdir()
    with lock("machine", "waiting for another lab's allocation"):
        labs = read_json(STATE / "labs.json")
        labs.pop(lab.id, None)
        if labs:
            write_json(STATE / "labs.json", labs)
        else:
            (STATE / "labs.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                STATE.rmdir()


def _free_number(labs: Mapping[str, Any]) -> int:
    taken = {entry["number"] for entry in labs.values()}
    routes = [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]))
        if route["dst"] != "default"
    ]
    for number in range(256):
        subnet = ipaddress.IPv4Network(f"10.77.{number}.0/24")
        # A route to all of 10/8 (a VPN) is less specific than ours: only real overlaps count.
        if number not in taken and not any(subnet.supernet_of(r) for r in routes):
            return number
    raise LabError("All of 10.77.0.0/16 is taken on this machine: `lab down` in another checkout.")


_started = time.monotonic()


def say(what: str) -> None:
    """Print one line of progress, with the seconds since the command began."""
    click.echo(f"[{time.monotonic() - _started:5.1f}s] {what}")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say that something is done and how long it took, unless it fails."""
    begun = time.monotonic()
    yield
    say(f"{what} ({time.monotonic() - begun:.1f} s)")

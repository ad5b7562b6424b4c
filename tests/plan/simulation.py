"""The whole deploy.py planned on fake hosts, inside this process.

pyinfra's two phases are kept: every operation is called first, then each one's commands are made,
in pyinfra's own order. No command is run: what a host answers to facts is what the test says.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pyinfra
from gevent import monkey
from pyinfra.api import Config, FunctionCommand, Host, State, StringCommand
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import Directory, File, FileContents
from pyinfra.facts.server import Arch, Groups, LinuxDistribution, Os, Sysctl, Users, Which

from fleet.container_toolkit.facts import Cdi, CdiDevices
from fleet.docker.facts import DockerImage, DockerInfo, GroupMembers, OwnedFile, OwnedText
from fleet.driver.facts import (
    BootId,
    DrivenGpus,
    DriverState,
    DriverStateFact,
    GpuHardware,
    GpuHardwareFact,
)
from fleet.firewall.facts import (
    Bridges,
    Filters,
    LoginCarrier,
    OtherFilters,
    OtherFirewalls,
    Ruleset,
    RulesetState,
    SshLogin,
    Uplinks,
)
from fleet.gates.facts import (
    FileHead,
    FileSize,
    GpuMemories,
    ManifestAnswer,
    ModelManifest,
    PlacementState,
    SurroundingsState,
)
from fleet.gates.placement import Placement, Surroundings
from fleet.gateway.facts import (
    AcmeNames,
    DrainedHosts,
    Nameservers,
    OpensslVersion,
    SeenServers,
    ServedServers,
)
from fleet.gateway.files import KERNEL, idle_file, served_file
from fleet.gateway.paths import (
    GATEWAY_CONFIG,
    GATEWAY_DECLARED,
    GATEWAY_DROPIN,
    GATEWAY_IDLE,
    GATEWAY_SERVED,
)
from fleet.gateway.traffic import NginxTraffic
from fleet.gpu.facts import GpuNote, GpuNoteFact
from fleet.kit import run
from fleet.kit.connection.careful import Careful
from fleet.kit.facts.apt import (
    AptHolder,
    ExistingFiles,
    KeptFiles,
    KeyringFingerprints,
    PackageVersions,
)
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.jobs import Download, FailedJobs, FetchJob, LoggedJob, LoggedRun
from fleet.kit.facts.listeners import Listeners
from fleet.kit.facts.places import Place, Places
from fleet.kit.facts.reach import FreeRoom
from fleet.kit.facts.traces import Traces
from fleet.kit.facts.units import ABSENT, Unit, UnitState
from fleet.kit.loaders import LoaderCheck, LoaderJob, LoaderRun
from fleet.models.choice import GIB, Memory
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState
from fleet.ollama.facts import OllamaReleases, OllamaServers, Release, Servers
from fleet.platform.facts import Clock, HasIpv6, HostAddresses, HostClock
from fleet.platform.record import DeployedRecord, Record
from fleet.serving.facts import ServersThere
from fleet.weights.facts import WeightsState
from tests.fleets import Hosts, inventory_of
from tests.plan import vllm_facts

# pyinfra's command line replaces the standard library's sockets and threads when it is imported.
with mock.patch.object(monkey, "patch_all"):
    from pyinfra_cli.prints import build_plan_json, jsonify
    from pyinfra_cli.util import json_encode

DEPLOY = Path(__file__).parents[2] / "deploy.py"
_CODE = compile(DEPLOY.read_text(), str(DEPLOY), "exec")

Answers = dict[type, Callable[..., Any]]


class UnregisteredFact(AssertionError):  # noqa: N818 - a failed test, not an error of the deploy
    """The deploy asks a host for something that no test has thought of."""


def bare(distribution: str = "debian", release: str = "13", machine: str = "x86_64") -> Answers:
    """What a host answers on which nothing of ours has ever been installed."""
    meta = {"ID": distribution, "VERSION_ID": release, "VERSION_CODENAME": "codename"}
    return {
        LinuxDistribution: lambda: {"name": distribution, "release_meta": meta},
        Arch: lambda: machine,
        Os: lambda: "Linux",
        Which: lambda command: f"/usr/sbin/{command}",
        Directory: lambda path: {"mode": 755} if path == "/run/systemd/system" else None,
        HostAddresses: AnyAddress,
        HostClock: lambda: Clock(time.time(), True),
        HasIpv6: lambda: True,
        FailedJobs: list,
        DeployedRecord: Record,
        ForeignFiles: lambda patterns: [],
        File: lambda path: None,
        FileContents: lambda path: None,
        FileStates: lambda paths: {},
        Places: lambda paths: {path: Place(path, path) for path in paths},
        Listeners: tuple,
        Traces: lambda parts: {},
        DebPackages: lambda: {"systemd": ["257"]},
        Groups: lambda: ["root"],
        Users: lambda: {"root": {"home": "/root", "shell": "/bin/bash", "group": "root"}},
        UnitState: lambda unit, files, reloaded=False: ABSENT,
        RulesetState: lambda table, path: Ruleset("", ""),
        OtherFirewalls: list,
        SshLogin: lambda _sudo: None,
        LoginCarrier: lambda source: None,
        OtherFilters: lambda probes, bridges: Filters(),
        Uplinks: lambda: ["eth0"],
        Bridges: list,
        OllamaReleases: lambda version: Release(),
        OllamaServers: Servers,
        DrivenGpus: tuple,
        GpuMemories: tuple,
        ModelManifest: lambda path, url, digest, environment: ManifestAnswer(None, "no answer"),
        FileHead: lambda path, url, environment: b"",
        FileSize: lambda place, environment: 0,
        PlacementState: lambda url, unit: Placement({}),
        SurroundingsState: lambda unit, sandboxed, has_switches: Surroundings(),
        DockerImage: lambda reference: False,
        OpensslVersion: lambda: (3, 5),
        DrainedHosts: dict,
        Nameservers: lambda: ("127.0.0.53",),
        SeenServers: lambda patience=0: {},
        ServedServers: lambda: None,
        ServersThere: lambda servers: (),
        NginxTraffic: NginxTraffic.default,
        AcmeNames: list,
        Sysctl: lambda keys: dict.fromkeys(keys, 0),
        ModelsState: lambda config: ModelsCheck(),
        WeightsState: lambda config: LoaderCheck(),
        FreeRoom: lambda paths: dict.fromkeys(paths, 10**12),
        HostMemory: lambda: Memory((), 128 * GIB),
        FetchJob: lambda unit, directory: Download(),
        LoaderJob: lambda unit, path: LoaderRun(),
        GpuHardwareFact: GpuHardware,
        GpuNoteFact: lambda traces: GpuNote(),
        DriverStateFact: lambda nouveau_conf: DriverState("6.12.94+deb13-amd64"),
        BootId: lambda: "boot",
        LoggedJob: lambda unit: LoggedRun(),
        AptHolder: str,
        KeptFiles: frozenset,
        KeyringFingerprints: lambda path: (),
        ExistingFiles: lambda paths: [],
        PackageVersions: lambda packages: {},
        OwnedFile: lambda path, record: OwnedText(),
        DockerInfo: dict,
        GroupMembers: lambda group: None,
        CdiDevices: Cdi,
        **vllm_facts.BARE,
    }


class AnyAddress(list[str]):
    """The addresses of a host that has whichever it is said to have."""

    def __contains__(self, address: object) -> bool:
        return True


RUNNING = Unit("loaded", "active", "enabled", False, False, True)


@dataclass
class Step:
    """An operation on a host, and the commands that it would run there."""

    name: str
    commands: list[PyinfraCommand]

    @property
    def lines(self) -> list[str]:
        """The commands as a shell gets them, secrets and all."""
        return [
            command.get_raw_value() if isinstance(command, StringCommand) else repr(command)
            for command in self.commands
        ]


@dataclass
class Plan:
    """What `pyinfra ... deploy.py` would do: host to its steps, and what `--dry` shows of it."""

    steps: dict[str, list[Step]]
    json: str
    order: list[str] = field(default_factory=list)  # "host: step", all hosts together
    failed: dict[str, str] = field(default_factory=dict)  # host to why, where hosts fail alone
    quiet: list[str] = field(default_factory=list)  # "host: command" of those that no step yields

    def names(self, host: str) -> list[str]:
        """The operations of `host` that would change something."""
        return [step.name for step in self.steps[host] if step.commands]

    def lines(self, host: str) -> list[str]:
        """Every command of `host`, in order."""
        return [line for step in self.steps[host] for line in step.lines]

    def step(self, host: str, name: str) -> Step:
        """The only step of `host` with this name."""
        [step] = [step for step in self.steps[host] if step.name == name]
        return step

    def index(self, host: str, pattern: str) -> int:
        """The place of the first command of `host` that matches `pattern`."""
        found = [i for i, line in enumerate(self.lines(host)) if re.search(pattern, line)]
        assert found, f"{host}: no command matches {pattern!r}"
        return found[0]

    def commands(self, host: str) -> list[PyinfraCommand]:
        """Every command object of `host`."""
        return [command for step in self.steps[host] for command in step.commands]

    def files(self, host: str) -> dict[str, tuple[str, FileState]]:
        """Path to content and state of what the commands would put in place on `host`.

        The commands themselves are followed: what stdin wrote into the stage, and what was then
        installed from it and renamed.
        """
        staged: dict[str, str] = {}
        ready: dict[str, tuple[str, FileState]] = {}
        installed: dict[str, tuple[str, FileState]] = {}
        for command in self.commands(host):
            if not isinstance(command, StringCommand):
                continue
            line = command.get_raw_value()
            if match := re.fullmatch(r"cat > (\S+)", line):
                stdin = command.connector_arguments["_stdin"]
                staged[match[1]] = "".join(f"{text}\n" for text in stdin)
            elif match := re.fullmatch(
                r"install -D -o (\S+) -g (\S+) -m (\S+) (\S+) (\S+)\.new \|\| .*", line
            ):
                user, group, mode, source, target = match.groups()
                sha256 = hashlib.sha256(staged[source].encode()).hexdigest()
                ready[target] = (staged[source], FileState(sha256, mode, user, group))
            elif names := re.findall(r"mv -fT (\S+)\.new (\S+)", line):
                for source, final in names:
                    assert source == final
                    installed[final] = ready.pop(final)
            elif re.fullmatch(r"\S+/firewall-guard try \S+ \d+", line):
                # Tried, and kept as soon as a new login succeeds, which here it does.
                text = "".join(f"{text}\n" for text in command.connector_arguments["_stdin"])
                sha256 = hashlib.sha256(text.encode()).hexdigest()
                state = FileState(sha256, "600", "root", "root")
                installed["/etc/llm-fleet/firewall.nft"] = (text, state)
        return installed

    def named_too_early(self, host: str) -> list[tuple[str, str]]:
        """Each file that is put in place before another that its text names, and that other."""
        files = self.files(host)
        placed = [
            path for line in self.lines(host) for path in re.findall(r"mv -fT \S+\.new (\S+)", line)
        ]
        assert placed
        return [
            (path, other)
            for number, path in enumerate(placed)
            for other in placed[number + 1 :]
            # Until the configuration is there, nginx is rather not to start than as packaged.
            if (path, other) != (GATEWAY_DROPIN, GATEWAY_CONFIG)
            and re.search(rf"(?<![\w/.-]){re.escape(other)}(?![\w/-])", files[path][0])
        ]


@contextmanager
def _contexts(state: State) -> Iterator[None]:
    """pyinfra's global state, set for a plan and empty again whatever happens in it."""
    managers = (ctx_state, ctx_inventory, ctx_config, ctx_host)
    with mock.patch.object(pyinfra, "is_cli", True):
        ctx_state.set(state)
        ctx_inventory.set(state.inventory)
        try:
            yield
        finally:
            for manager in managers:
                manager.reset()


def plan(
    hosts: Hosts, answers: Mapping[str, Answers], *, diff: bool = False, alone: bool = False
) -> Plan:
    """Plan deploy.py for `hosts`; `answers` has what each of them answers.

    Each host fails `alone`, as in a deploy, or by what fails it.

    Raises:
        FleetError: what the deploy refuses, unless `alone`.
        UnregisteredFact: the deploy asked for a fact that is not in `answers`.
    """

    def get_fact(host: Host, fact: type, *args: Any, **kwargs: Any) -> Any:
        asked = answers[host.name.removeprefix("@fake/")]
        if fact not in asked:
            raise UnregisteredFact(f"{host.name}: {fact.__name__} {args} {kwargs}")
        return asked[fact](*args, **kwargs)

    quiet: list[str] = []

    def run_shell_command(host: Host, command: StringCommand, **_: Any) -> Any:
        quiet.append(f"{host.name.removeprefix('@fake/')}: {command.get_raw_value()}")
        return True, CommandOutput([])

    def aside(connector: Careful, command: StringCommand) -> Any:
        return run_shell_command(connector.host, command)

    inventory = inventory_of({f"@fake/{name}": declared for name, declared in hosts.items()})
    state = State(inventory, Config(DIFF=diff))
    state.current_deploy_filename = str(DEPLOY)
    each = run.alone if alone else nullcontext
    with (
        mock.patch.object(Host, "get_fact", get_fact),
        # What a step runs by itself, and not as one of its commands.
        mock.patch.object(Host, "run_shell_command", run_shell_command),
        # Hosts are careful once a test of this process has opened an inventory.
        mock.patch.object(
            Careful, "aside", lambda it, command: run_shell_command(it.host, command)
        ),
        mock.patch.object(run, "alone", each),
        _contexts(state),
    ):
        state.set_stage(StateStage.Prepare)
        for host in inventory:
            state.activate_host(host)
            host.connected = True
        for host in inventory:
            # In a greenlet of its own, as pyinfra does it: host and config are local to it.
            if error := gevent.spawn(_load, state, host).get():
                raise error
        shown = jsonify(build_plan_json(state), default=json_encode)
        state.set_stage(StateStage.Execute)
        state.is_executing = True
        return replace(_execute(state, shown), quiet=quiet)


def _load(state: State, host: Host) -> Exception | None:
    ctx_host.set(host)
    ctx_config.set(state.config.copy())
    try:
        exec(_CODE, {"__file__": str(DEPLOY)})  # noqa: S102 - as pyinfra runs a deploy file
    except Exception as error:
        return error
    return None


def _execute(state: State, shown: str) -> Plan:
    steps: dict[str, list[Step]] = {
        host.name.removeprefix("@fake/"): [] for host in state.inventory
    }
    order = []
    for op_hash in state.get_op_order():
        [name] = state.op_meta[op_hash].names
        for host in state.inventory:
            if host in state.failed_hosts or op_hash not in state.ops[host]:
                continue
            ctx_host.set(host)
            ctx_config.set(state.config.copy())
            data = state.ops[host][op_hash]
            commands = list(data.command_generator())
            short = host.name.removeprefix("@fake/")
            steps[short].append(Step(name, commands))
            if commands:
                order.append(f"{short}: {name}")
            if any(_is_failure(command) for command in commands):
                state.failed_hosts.add(host)
    return Plan(steps, shown, order, run.failures(state))


def _is_failure(command: PyinfraCommand) -> bool:
    """Whether it is what an operation's exception was turned into."""
    return isinstance(command, FunctionCommand) and command.function.__module__ == run.__name__


def converged(first: Plan, host: str, before: Answers, **declared: Any) -> Answers:
    """What `host` answers once `first`, its plan from bare, has been run.

    Its files and packages are those of the plan's commands. The rest is `declared` by the test:
    `models_dir`, `release` (version and checksum) and `models`.
    """
    files = {path: state for path, (_, state) in first.files(host).items()}
    served = _let_in(first, host, files)
    kept = declared.get("kept", [])  # made on the host itself
    files |= {path: FileState("0" * 64, "600", "root", "root") for path in kept}
    installs = [line for line in first.lines(host) if "apt-get" in line and " install " in line]
    packages = {
        name: ["1"]
        for line in installs
        for name in line.split("--no-install-recommends ")[1].split(" ;")[0].split()
    }
    directories = {
        "/etc/llm-fleet": ("root", "755"),
        "/var/lib/ollama": ("ollama", "750"),
        "/etc/llm-fleet/gateway": ("root", "700"),
        "/var/lib/llm-fleet-gateway": ("www-data", "750"),
        "/var/lib/llm-fleet-acme": ("root", "755"),
        declared["models_dir"]: ("ollama", "755"),
        "/data/weights": ("llm-fleet-weights", "755"),
    }
    ollama = {"home": "/var/lib/ollama", "shell": "/usr/sbin/nologin", "group": "ollama"}
    weights = {**ollama, "home": "/var/lib/llm-fleet-weights", "group": "llm-fleet-weights"}
    installed, sha256 = declared["release"]

    log = {"mode": 640, "user": "www-data", "group": "llm-fleet-log"}

    def place(path: str) -> Place:
        user, mode = directories.get(path, ("root", "755"))
        return Place(path, path, "directory", user, user, mode)

    return before | {
        FileStates: lambda paths: {path: files[path] for path in paths if path in files},
        FileContents: lambda path: first.files(host)[path][0].splitlines(),
        DebPackages: lambda: packages,
        ServedServers: lambda: served,
        Places: lambda paths: {path: place(path) for path in paths},
        File: lambda path: log if path == "/var/log/llm-fleet/gateway.log" else None,
        Sysctl: lambda keys: {key: KERNEL[key] for key in keys},
        AcmeNames: lambda: declared.get("acme_names", []),
        Groups: lambda: ["root", "ollama", "llm-fleet-log", "llm-fleet-weights"],
        Users: lambda: {"ollama": ollama, "llm-fleet-weights": weights},
        UnitState: lambda unit, files, reloaded=False: RUNNING,
        RulesetState: lambda table, path: Ruleset("table", "table"),
        OllamaReleases: lambda version: Release(
            sha256 if version == installed else None, f"/opt/ollama/{installed}"
        ),
        ModelsState: lambda config: ModelsCheck(True, tuple(declared["models"])),
        WeightsState: lambda config: LoaderCheck(True, ("toy",), to_fetch=0),
    }


def _let_in(first: Plan, host: str, files: dict[str, FileState]) -> tuple[str, ...] | None:
    """What a gateway serves once its hosts are ready, as `files` then say; None of no gateway."""
    written = first.files(host)
    if GATEWAY_CONFIG not in written:
        return None
    servers = written[GATEWAY_DECLARED][0].partition('["servers"] = ')[2]
    # Backends are nobody's to let in.
    told = re.findall(r'\["name"\] = "([^"]+)".*?\["address"\] = "([^"]+)"', servers, re.DOTALL)
    names = [name for name, address in told if not address.startswith("unix:")]
    files[GATEWAY_SERVED] = served_file(names).state
    files[GATEWAY_IDLE] = idle_file([]).state
    return tuple(names)


def secrets_of(store: Path, name: str = "*") -> list[str]:
    """The values of the secrets below `store` that are called `name`."""
    return [path.read_text().strip() for path in store.rglob(name) if path.is_file()]


def everything_shown(planned: Plan) -> str:
    """All that a plan leaves in argv, in logs of commands and in JSON; not what stdin carries."""
    texts = [planned.json, *planned.order, *planned.quiet]
    for steps in planned.steps.values():
        for step in steps:
            for command in step.commands:
                texts += [str(command), repr(command), json.dumps(step.lines)]
    return "\n".join(texts)

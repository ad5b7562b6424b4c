"""What a run of pyinfra tells the command that started it: what it is at, host by host.

A line of JSON for each event, on the file descriptor that the environment names; nothing without.
docs/decisions/0029-the-command-around-pyinfra.md has why.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click
import gevent  # type: ignore[import-untyped]
from gevent.event import AsyncResult  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.state import BaseStateCallback, StateOperationHostData
from pyinfra.context import ctx_host, ctx_state
from typing_extensions import override

from fleet.kit.run import failures

DESCRIPTOR = "LLM_FLEET_EVENTS"
GO_ON = "go on"  # the answer to a plan that has it carried out; anything else does not
_MOST = 2000  # characters of a line that a host says
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def tell(event: str, host: Host | None = None, **details: Any) -> None:
    """Tell one event, if anybody listens.

    Events: first `begins` (pyinfra runs our `config.py`); `connected`, `lost` (`reason`),
    `starts`, `done` (`changed`) and `error` (`operation`), `restarts` (`unit`, `verb`), `says`
    (`text`, `level`), `would` (`operation`), `would restart` (a `Restart`, and whom it `cuts_off`),
    `planned`, `failed` (`reason`), `left` (`text`: what an interrupt leaves behind); and last
    `ended`, unless it broke.
    """
    if (number := os.environ.get(DESCRIPTOR)) is None:
        return
    line = json.dumps({"event": event, **({"host": host.name} if host else {}), **details})
    # Nobody reads it any more: `listen` ends this run.
    with suppress(BrokenPipeError):
        os.write(int(number), f"{line}\n".encode())


def tell_restart(unit: str, verb: str | None) -> None:
    """Tell that the current operation starts, restarts or reloads `unit`, when it is executed."""
    host: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    if verb is not None and host.state.is_executing:
        tell("restarts", host, unit=unit, verb=verb)


def tell_run(context: click.Context) -> None:
    """Have the run of pyinfra's command line `context` tell what it is at, if anybody listens."""
    if DESCRIPTOR not in os.environ:
        return
    tell("begins")
    # It replaces sockets and threads of the standard library: only in a process of pyinfra's.
    from pyinfra_cli import cli  # noqa: PLC0415

    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    init = state.init
    teller = _Teller()

    def told_init(*arguments: Any, **options: Any) -> None:
        init(*arguments, **options)
        # There is one question, and it is not whether to go on without a host.
        state.should_raise_failed_hosts = lambda _: False
        state.add_callback_handler(teller)  # type: ignore[no-untyped-call]

    state.init = told_init  # type: ignore[method-assign]
    gevent.spawn(teller.listen)
    logger.addHandler(_Said())
    cli._do_confirm = lambda _: teller.ask(state)
    context.call_on_close(lambda: teller.end(state))


class _Teller(BaseStateCallback):
    """Tells what pyinfra calls its handlers for; each is called with the state."""

    def __init__(self) -> None:
        self._commands: Counter[tuple[Host, str]] = Counter()
        self._is_planned = False
        self._answer: Any = AsyncResult()

    @override
    def host_connect(self, state: State, host: Host) -> None:  # type: ignore[override]
        tell("connected", host)

    @override
    def host_connect_error(  # type: ignore[override]
        self, state: State, host: Host, error: Exception
    ) -> None:
        tell("lost", host, reason=" ".join(map(str, error.args)))

    @override
    def operation_host_start(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str
    ) -> None:
        data = state.ops[host].get(op_hash)
        if data is None:
            return
        tell("starts", host, operation=_name(state, op_hash))
        self._count(host, op_hash, data)

    def _count(self, host: Host, op_hash: str, data: StateOperationHostData) -> None:
        """Count its commands: pyinfra's own handlers are not told whether there were any."""
        make = data.command_generator

        def counted() -> Iterator[PyinfraCommand]:
            for command in make():
                self._commands[host, op_hash] += 1
                yield command

        data.command_generator = counted

    @override
    def operation_host_success(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        changed = bool(self._commands[host, op_hash])
        tell("done", host, operation=_name(state, op_hash), changed=changed)

    @override
    def operation_host_error(  # type: ignore[override]
        self,
        state: State,
        host: Host,
        op_hash: str,
        retry_count: int = 0,
        max_retries: int = 0,
    ) -> None:
        tell("error", host, operation=_name(state, op_hash))

    def ask(self, state: State) -> bool:
        """Tell the plan, and wait for the answer on standard input; whether it is to go on."""
        self._plan(state)
        # In the meantime connections are looked after: unlike `input`, this is gevent's.
        return bool(self._answer.get() == GO_ON)

    def listen(self) -> None:
        """Take the answer from standard input; once that ends, whoever started this run is gone."""
        while True:
            select.select([sys.stdin], [], [])
            if not (said := os.read(sys.stdin.fileno(), _MOST)):
                break
            self._answer.set(said.decode().strip())
        os.kill(os.getpid(), signal.SIGTERM)

    def end(self, state: State) -> None:
        """Tell the plan of a dry run, which hosts failed by what, and that it came to its end."""
        if not state.initialised:
            return
        # By anything else it broke, and nobody knows what it would have done.
        has_ended = isinstance(sys.exc_info()[1], SystemExit)
        is_dry = state.check_for_changes and not state.is_executing
        if has_ended and is_dry and not self._is_planned and state.active_hosts:
            self._plan(state)
        for name, reason in failures(state).items():
            tell("failed", state.inventory.get_host(name), reason=reason)
        if has_ended:
            tell("ended")

    def _plan(self, state: State) -> None:
        self._is_planned = True
        for op_hash in state.get_op_order():  # type: ignore[no-untyped-call]
            for host in state.inventory:
                data = state.ops[host].get(op_hash)
                if data is not None and host in state.active_hosts:
                    with ctx_host.use(host):
                        if data.operation_meta.will_change:
                            tell("would", host, operation=_name(state, op_hash))
        for name, reason in failures(state).items():
            tell("failed", state.inventory.get_host(name), reason=reason)
        tell("planned")


class _Said(logging.Handler):
    """Tells what operations say of a host, and not what pyinfra says of operations."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        host: Host | None = ctx_host.get()  # type: ignore[no-untyped-call]
        is_of_operation = record.funcName == Host.log.__name__ and record.module == "host"
        if host is None or not is_of_operation or record.levelno < logging.INFO:
            return
        text = record.getMessage()
        if text.startswith(host.print_prefix):
            plain = _STYLE.sub("", text.removeprefix(host.print_prefix))
            tell("says", host, text=plain[:_MOST], level=record.levelno)


def _name(state: State, op_hash: str) -> str:
    return ", ".join(sorted(state.op_meta[op_hash].names))

"""A run as an operator sees it: live, planned, and summed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fleet.operate.child import Event
from fleet.operate.outcome import HostOutcome, Outcome

_EVERY: Final = 10.0  # seconds between two lines of progress of a host, without a terminal
_FEW: Final = 3  # operations that the summary names of a host
_MOST_HOSTS: Final = 12  # hosts that the summary has a row for, of each kind
_ROWS: Final = 10  # hosts at work that are shown live


class Display(AbstractContextManager["Display"]):
    """What happens in a run: a line for each change and failure, and below them who is at what.

    Without a terminal, work that takes long says every ten seconds how far it is.
    """

    def __init__(self, console: Console, outcome: Outcome) -> None:
        self._console, self._outcome = console, outcome
        self._spinners: dict[str, Spinner] = {}
        self._shown_at: dict[str, float] = {}
        self._live = Live(
            get_renderable=self._at_work,
            console=console,
            transient=True,
            auto_refresh=console.is_terminal,
        )

    def __enter__(self) -> Display:
        """Begin to show who is at what."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Show no more who is at what."""
        self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question."""
        self._live.stop()
        yield
        self.__enter__()

    def show(self, event: Event, host: HostOutcome, now: float) -> None:
        """Show an event that the host's outcome has taken in already."""
        match event["event"]:
            case "done" if event["changed"]:
                self._line(host, "changed", event["operation"], "green")
            case "error":
                self._line(host, "failed", event["operation"], "red")
            case "lost":
                self._line(host, "failed", host.failed or "", "red")
            case "says" if event["text"] in host.remarks:
                self._line(host, "note", event["text"], "yellow")
            case "starts":
                self._shown_at[host.name] = now
            case "says" if not self._console.is_terminal:
                if now - self._shown_at.get(host.name, now) >= _EVERY:
                    self._shown_at[host.name] = now
                    self._line(host, "at work", f"{host.at}: {host.said}", "default")

    def echo(self, line: str) -> None:
        """Show a line of pyinfra's own output."""
        self._console.print(Text.from_ansi(line))

    def _line(self, host: HostOutcome, word: str, text: str, style: str) -> None:
        self._console.print(
            Text.assemble((f"{host.name}  ", "bold"), (word, style), f"  {text}"), soft_wrap=True
        )

    def _at_work(self) -> Group:
        table = Table.grid(padding=(0, 2))
        at_work = [host for host in self._outcome if host.at]
        for host in at_work[:_ROWS]:
            spinner = self._spinners.setdefault(host.name, Spinner("dots"))
            table.add_row(spinner, Text(host.name), Text(host.at), Text(host.said, style="dim"))
        if len(at_work) > _ROWS:
            table.add_row("", Text(f"... and {len(at_work) - _ROWS} more"))
        return Group(table)


def plan(outcome: Outcome) -> Iterator[Text]:
    """What a deploy would do, a paragraph a host; those without a change are one line together."""
    for host in outcome:
        if host.failed is not None:
            yield _failed(host, ("cannot be deployed: ", "red"))
        elif host.would:
            yield _headed(host, ("would change", "yellow"), f" {len(host.would)}:")
            yield from (Text(f"    {operation}") for operation in host.would)
            for item in host.would_restart:
                cuts = f": cuts off {item['cuts_off']}" if item["cuts_off"] else ""
                yield Text(f"    would {item['verb']} {item['unit']}{cuts}", style="yellow")
    quiet = [host.name for host in outcome if host.failed is None and not host.would]
    if quiet:
        yield Text(f"Nothing would change on {_names(quiet)}.")


def summary(outcome: Outcome) -> Iterator[Text]:
    """What a deploy did: first the failures, then the changes, then all others in one line."""
    failed = outcome.failed
    changed = [host for host in outcome if host.failed is None and host.changed]
    quiet = [host.name for host in outcome if host.failed is None and not host.changed]
    for host in failed[:_MOST_HOSTS]:
        took = f" after {duration(host.seconds)}" if host.is_connected else ""
        yield _failed(host, (f"FAILED{took}: ", "bold red"))
    yield from _more(failed, "failed")
    for host in changed[:_MOST_HOSTS]:
        yield _headed(host, ("changed: ", "green"), _did(host))
    yield from _more(changed, "changed")
    if quiet:
        yield Text(f"Nothing to change on {_names(quiet)}.")


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s` or `3m05s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f}m{seconds % 60:02.0f}s"


def _did(host: HostOutcome) -> str:
    more = f" and {len(host.changed) - _FEW} more" if len(host.changed) > _FEW else ""
    restarted = f"; restarted {', '.join(host.restarted)}" if host.restarted else ""
    return f"{', '.join(host.changed[:_FEW])}{more}{restarted} ({duration(host.seconds)})"


def _failed(host: HostOutcome, head: tuple[str, str]) -> Text:
    return _headed(host, head if host.is_known else ("", ""), host.failed or "")


def _headed(host: HostOutcome, head: tuple[str, str], text: str) -> Text:
    return Text.assemble((f"{host.name}  ", "bold"), head, text)


def _more(hosts: list[HostOutcome], word: str) -> Iterator[Text]:
    if len(hosts) > _MOST_HOSTS:
        yield Text(f"... and {len(hosts) - _MOST_HOSTS} more {word}; --json names all")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    if len(listed) <= _MOST_HOSTS:
        return ", ".join(listed)
    return f"{len(listed)} hosts"

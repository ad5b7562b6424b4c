"""What `fleet status` tells of what a host fetches by itself: which of it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.status import Look, Told
from fleet.kit.loaders import ItemProgress, read_state, show_state

_READY, _FAILED = "ready", "failed"


@dataclass(frozen=True)
class Loaded:
    """A loader of `what`, by its unit and its state file, and the names that are declared."""

    what: str
    unit: str
    state: str
    declared: tuple[str, ...]

    def look(self, also: Callable[[Mapping[str, ItemProgress]], Iterable[Told]]) -> Look:
        """What the loader has written down, and whether it is at work; and what `also` tells."""
        unit = StringCommand("systemctl show --value -p ActiveState --", QuoteString(self.unit))
        return Look((show_state(self.state), unit), lambda found: self._tell(also, *found))

    def _tell(
        self,
        also: Callable[[Mapping[str, ItemProgress]], Iterable[Told]],
        state: list[str],
        unit: list[str],
    ) -> Iterator[Told]:
        found = read_state("\n".join(state))
        missing = [name for name in self.declared if name not in found]
        ready = [name for name, item in found.items() if item.phase == _READY]
        values: dict[str, Any] = {
            "loader": unit[0] if unit else None,
            self.what: {
                **{name: _values(item) for name, item in found.items()},
                **{name: {"phase": None} for name in missing},
            },
        }
        every = len(found) + len(missing)
        is_ready = len(ready) == every > 0
        yield Told(f"{self.what} {len(ready)}/{every}{' ready' if is_ready else ''}", values)
        yield from self._not_ready(found)
        for name in missing:
            yield Told(problem=f"{name} is declared, and the loader does not know of it: deploy")
        yield from also(found)

    def _not_ready(self, found: Mapping[str, ItemProgress]) -> Iterator[Told]:
        for name, item in found.items():
            if item.phase == _READY:
                continue
            remedy = (
                f"; `journalctl -u {self.unit}` there has the reason, and a deploy tries again"
                if item.phase == _FAILED
                else ""
            )
            yield Told(f"{name} {item.phase}", problem=f"{name} is not ready: {item}{remedy}")


def _values(item: ItemProgress) -> dict[str, Any]:
    left = item.total - item.completed
    return {
        "phase": item.phase,
        "completed": item.completed,
        "total": item.total,
        "rate": item.rate,
        "left": round(left / item.rate) if item.rate and left > 0 else None,
        "error": item.error,
    }

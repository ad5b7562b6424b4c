"""What the workers of an nginx on this machine take: processor time and memory."""

import re
from pathlib import Path


def _pids(folder: str) -> list[int]:
    """Of the nginx whose files are in `folder`."""
    master = Path(folder, "nginx.pid").read_text().strip()
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def seconds(folder: str) -> float:
    """Processor time of all workers so far."""
    return sum(_seconds(pid) for pid in _pids(folder))


def _seconds(pid: int) -> float:
    # Nanoseconds on a processor; what stat has is in hundredths of a second.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def memory(folder: str) -> float:
    """MB of all workers, each with its share of what they have in common (PSS)."""
    rolled = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _pids(folder)]
    kilobytes = [int(found[1]) for text in rolled if (found := re.search(r"\nPss:\s+(\d+)", text))]
    return sum(kilobytes) * 1024 / 1e6

"""Back up Open WebUI's volume while it runs, or put a backup back.

usage: webui_backup.py CONFIG [--due]
       webui_backup.py CONFIG --restore ARCHIVE

CONFIG is JSON: `volume` (Docker's name of it), `image`, `unit` (what runs the server), `programs`
(the folder of `webui_copy.py`), `databases` (paths in the volume), `directory` (where archives
are), `keep` (how many), `due` (seconds: with a younger archive `--due` does nothing). An archive
has its name only when it is whole, and its SHA-256 beside it.

This is root, and what is in the volume is not: `webui_copy.py` reads and writes it in a container
of the same image, which has no capability, no network, and sees the volume alone.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from archives import is_due, prune, seal, sum_of, volume_path
from common import ProgramError, log, make_directory, run, say, sha256

ARCHIVES = "webui-*.tar"
_DATA, _SCRATCH, _ARCHIVE, _PROGRAMS = "/data", "/scratch", "/archive.tar", "/llm-fleet"


def main(words: list[str]) -> int:
    """Do it; the exit status."""
    os.umask(0o077)
    config = json.loads(Path(words[0]).read_text())
    try:
        if words[1:2] == ["--restore"]:
            restore(config, Path(words[2]))
        else:
            back_up(config, due="--due" in words[1:])
    except (ProgramError, OSError) as error:
        log(f"Open WebUI: {error}")
        return 1
    return 0


def back_up(config: dict[str, Any], *, due: bool) -> None:
    """Have an archive of what is in the volume; with `due` only when the newest is old."""
    directory = Path(config["directory"])
    make_directory(directory, 0o700)
    if due and not is_due(directory, ARCHIVES, config["due"]):
        say("not due")
        return
    for left in directory.glob(".webui-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    # Docker would make a volume that is not there, and the backup would be one of nothing.
    volume_path(config["volume"])
    with tempfile.TemporaryDirectory(dir=directory, prefix=".webui-") as scratch:
        _copy(config, "pack", f"type=bind,source={scratch},target={_SCRATCH}")
        part = Path(scratch) / "part"
        if not stat.S_ISREG(part.lstat().st_mode):
            raise ProgramError(f"{part}: no file")
        archive = directory / f"webui-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
        seal(part, archive)
    prune(directory, ARCHIVES, config["keep"], {archive})
    say(f"{archive.name}: {archive.stat().st_size} bytes")


def restore(config: dict[str, Any], archive: Path) -> None:
    """Have in the volume what is in `archive`, and the server up on it."""
    known = sum_of(archive)
    if known.read_text().split()[:1] != [sha256(archive)]:
        raise ProgramError(f"{archive}: not what {known.name} says; nothing was restored from it")
    volume_path(config["volume"])
    mount = f"type=bind,source={archive.resolve()},target={_ARCHIVE},readonly"
    _copy(config, "judge", mount)
    run("systemctl", "stop", config["unit"])
    _copy(config, "unpack", mount)
    run("systemctl", "start", config["unit"])
    say(f"{archive.name} is restored")


def _copy(config: dict[str, Any], what: str, *mounts: str) -> None:
    """Run `webui_copy.py` on the volume, in a container."""
    name = f"{config['volume']}-copy"
    # What a killed one left has the name; mostly there is none.
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    given = {"data": _DATA, "scratch": _SCRATCH, "archive": _ARCHIVE,
             "databases": config["databases"]}  # fmt: skip
    mounts = (
        f"type=volume,source={config['volume']},target={_DATA}",
        f"type=bind,source={config['programs']},target={_PROGRAMS},readonly",
        *mounts,
    )
    done = subprocess.run(
        ["docker", "run", "--rm", "--name", name, "--pull", "never", "--log-driver", "none",
         "--network", "none", "--read-only", "--cap-drop", "ALL",
         "--security-opt", "no-new-privileges",
         *(word for mount in mounts for word in ("--mount", mount)),
         "--entrypoint", "python3", config["image"],
         "-I", f"{_PROGRAMS}/webui_copy.py", what, json.dumps(given)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-3:]
        raise ProgramError(f"{what}: {' | '.join(said) or f'exit {done.returncode}'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

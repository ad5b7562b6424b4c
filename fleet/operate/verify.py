"""`fleet verify`: prove of a fleet what is declared for it, changing nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.declare.open import open_asked
from fleet.kit.errors import FleetError
from fleet.operate.command import COULD_NOT_TELL, FINDINGS, GOOD, json_option
from fleet.operate.report import page
from fleet.operate.signature import check_signed, public_key, signed, signing_key

CHECKS = PRODUCT_ROOT / "tests" / "compliance"
_REACH = "reach"  # is asked always: all else follows from it
_STATUS = {"good": GOOD, "findings": FINDINGS, "could-not-tell": COULD_NOT_TELL}
_SWITCHES = ("all_blobs", "full_scan")
# pytest's own statuses after which there are results: all passed, some failed, there was no check.
_TOLD = (0, 1, 5)
_REFUSED = 4  # pytest has said why
# A process for some hosts each: what they all would read and compile anew takes longer than a host.
_ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path(sys.prefix) / "pycache"),
}

_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[HOST|GROUP]...")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="NAME",
    help="Only what is claimed of this capability; may be repeated.",
)
@json_option
@click.option("--html", type=_file, help="Write a report to this file: one page, signed.")
@click.option("--junit", type=_file, help="Write the results to this file as JUnit XML.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Hosts that are looked into at a time.",
)
@click.option("--all-blobs", is_flag=True, help="Hash every file of every declared model.")
@click.option(
    "--hash-up-to",
    type=int,
    default=512,
    show_default=True,
    metavar="MB",
    help="Hash files of models up to this size; of larger ones, ask if they changed.",
)
@click.option("--full-scan", is_flag=True, help="Try all 65535 TCP ports, not the known ones.")
@click.option(
    "--check-report",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Only tell whether this report was signed by the store of INVENTORY.",
)
@click.pass_context
def verify(
    context: click.Context,
    /,
    inventory: Path,
    names: tuple[str, ...],
    capabilities: tuple[str, ...],
    **options: Any,
) -> None:
    """Prove what INVENTORY declares, from inside and outside; nothing is changed.

    All hosts, or each HOST or GROUP that is named, by themselves or by their group. A claim
    is `ok`, `skip` (not declared), WARN (look at it), `?` (could not be checked,
    another line says why) or FAIL.

    Ends with 0 when all holds, warnings or not, 1 when something fails, 2 when
    it could not be told, 130 when interrupted.

    \b
      fleet verify inventory/prod.py
      fleet verify inventory/prod.py gpu --capability models
      fleet verify inventory/prod.py --html report.html
      fleet verify inventory/prod.py --check-report report.html
    """
    if options["check_report"]:
        _check(options["check_report"], inventory)
        return
    _refuse_unwritable(options["html"], options["junit"])
    found = _run(
        [*_files(capabilities), f"--inventory={inventory}", *_asked(names, options)],
        as_json=options["as_json"],
    )
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    if options["html"]:
        _write(options["html"], inventory, found)
    context.exit(_STATUS[found["status"]])


def checked_capabilities() -> list[str]:
    """The capabilities of which something is claimed."""
    found = {path.stem.removeprefix("test_") for path in CHECKS.glob("test_*.py")}
    return sorted(found - {_REACH})


def _refuse_unwritable(html: Path | None, junit: Path | None) -> None:
    """Refuse a file that cannot be written before the checks, which take their time, are run."""
    for option, path in (("--html", html), ("--junit", junit)):
        if path is None:
            continue
        # pytest makes the directories of its own.
        above = path.parents if path is junit else path.parents[:1]
        folder = next((item for item in above if item.exists()), path.parent)
        if not folder.is_dir():
            raise FleetError(f"{option} {path}: {folder}: no such directory")
        target = path if path.exists() else folder
        if not os.access(target, os.W_OK):
            raise FleetError(f"{option} {path}: {target}: cannot be written to")


def _files(capabilities: Sequence[str]) -> list[str]:
    """What pytest is to read."""
    known = checked_capabilities()
    for name in capabilities:
        if name not in known:
            raise FleetError(f"--capability {name}: there is {', '.join(known)}")
    if not capabilities:
        return [str(CHECKS)]
    return [str(CHECKS / f"test_{name}.py") for name in (_REACH, *capabilities)]


def _asked(names: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """What was asked for, as the checks' own options."""
    asked = [f"--only={name}" for name in names]
    asked += [f"--jobs={options['jobs']}", f"--hash-up-to={options['hash_up_to']}"]
    asked += [f"--{name.replace('_', '-')}" for name in _SWITCHES if options[name]]
    return [*asked, *([f"--junitxml={options['junit']}"] if options["junit"] else [])]


def _run(arguments: list[str], *, as_json: bool) -> dict[str, Any]:
    """Run the checks, which show what they see as they go; their results."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        command = [
            sys.executable, "-m", "pytest", *arguments, f"--rootdir={PRODUCT_ROOT}",
            f"--json={results}", "-nauto", "--dist=loadgroup", "-q", "--no-header", "--tb=short",
            # The table tells each reason, once.
            "-rN", "-p", "no:cacheprovider", "-p", "xdist",
        ]  # fmt: skip
        # What is asked for as JSON is alone on standard output.
        output = sys.stderr if as_json else None
        with subprocess.Popen(command, stdout=output, env=os.environ | _ENVIRONMENT) as process:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                # It was told, too: it shows what it has by now, and ends.
                process.wait()
                raise
        if status == _REFUSED:
            click.get_current_context().exit(COULD_NOT_TELL)
        if status not in _TOLD or not results.exists():
            raise FleetError("the checks did not come to their end; see above")
        found: dict[str, Any] = json.loads(results.read_text())
    if status and found["status"] == "good":
        # A process that died leaves a failure of no claim.
        raise FleetError("a check ended as none should; see above")
    if found["why"]:
        click.echo(f"Error: {found['why']}", err=True)
    return found


def _write(path: Path, inventory: Path, found: dict[str, Any]) -> None:
    key = signing_key(open_asked(inventory)[1].secrets)
    text = page(found, public_key(key) if key else None)
    if key is None:
        click.echo(f"{path} is not signed: no deploy has given the store an identity yet", err=True)
    path.write_bytes(signed(text, key) if key else text.encode())
    click.echo(f"report: {path}", err=True)


def _check(path: Path, inventory: Path) -> None:
    store = open_asked(inventory)[1].secrets
    key = signing_key(store)
    if key is None:
        raise FleetError(f"{store.root} has no identity: nothing was signed by it")
    try:
        check_signed(path.read_bytes(), key)
    except FleetError as error:
        click.echo(f"{path}: {error}", err=True)
        click.get_current_context().exit(FINDINGS)
    click.echo(f"{path}: signed by the store of {inventory}, and unchanged; key {public_key(key)}")

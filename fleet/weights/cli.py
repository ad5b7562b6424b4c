"""What an operator does about weights: write their lock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from fleet.declare.types import HttpUrl
from fleet.kit.errors import FleetError
from fleet.kit.on_host.common import size_text, write
from fleet.weights.lock import Lock, lock_text, read_lock
from fleet.weights.settings import Pattern, RepositoryName, Weights


@click.group("weights")
def weights_group() -> None:
    """Weights: write the lock that a host's files are judged by."""


@weights_group.command("lock", short_help="Write the lock of REPO, by what its hub says now.")
@click.argument("repository", metavar="REPO")
@click.option(
    "--revision", default="main", show_default=True,
    help="A commit; of a branch or tag, the commit that it is at now.",
)  # fmt: skip
@click.option(
    "--include", multiple=True, default=("*",), show_default="*", metavar="PATTERN",
    help="Files to have, by a shell pattern of their path; may be repeated.",
)  # fmt: skip
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Of these, files to leave out."
)  # fmt: skip
@click.option(
    "--source", type=click.Choice(["huggingface", "modelscope"]), default="huggingface",
    show_default=True, help="Where the repository is.",
)  # fmt: skip
@click.option("--endpoint", help="A mirror of the source, as weights_endpoint declares it.")
@click.option(
    "-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), required=True,
    metavar="FILE", help="Where the lock goes; commit it.",
)  # fmt: skip
def lock(  # noqa: PLR0913, PLR0917 - each is an option
    repository: str,
    revision: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    source: str,
    endpoint: str | None,
    path: Path,
) -> None:
    """Write the lock of REPO: size and SHA-256 of each file, by what its hub says now.

    Large files are not fetched: the hub tells their SHA-256. Small ones are, and hashed here. For a
    gated repository, give a token in the environment variable HF_TOKEN.

    \b
    Example:
      fleet weights lock openai/gpt-oss-120b --include 'original/*' -o oss.lock
    """
    # Heavy, and each deploy loads the list of commands.
    from fleet.weights.listing import Hub, chosen  # noqa: PLC0415

    _check(RepositoryName, repository, "REPO")
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in patterns:
            _check(Pattern, pattern, option)
    field = "modelscope_endpoint" if source == "modelscope" else "endpoint"
    url = _check(HttpUrl, endpoint or Weights.model_fields[field].default, "--endpoint")
    token = os.environ.get("HF_TOKEN", "") if source == "huggingface" else ""
    if token and not url.startswith("https://"):
        raise click.UsageError(f"HF_TOKEN would go to {url} in clear; use an https:// address")
    hub = Hub(source, url, token, lambda text: click.echo(text, err=True))
    commit = hub.commit(repository, revision)
    entries = chosen(hub.files(repository, commit), include, exclude, f"{repository} at {commit}")
    files = tuple(hub.locked(repository, commit, entry) for entry in entries)
    made = _made(
        source=source, repository=repository, revision=commit,
        include=include, exclude=exclude, files=files,
    )  # fmt: skip
    _refuse_other_content(path, made)
    write(path, lock_text(made), 0o644)
    click.echo(f"{path}: {len(files)} files, {size_text(made.bytes)}; commit it", err=True)
    click.echo(f"revision = {commit}", err=True)


def _check(kind: Any, value: str, what: str) -> str:
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise click.UsageError(f"{what}: {value!r}: {error.errors()[0]['msg']}") from None
    return checked


def _made(**values: Any) -> Lock:
    try:
        return Lock.model_validate(values)
    except ValidationError as error:
        raise FleetError(f"{values['repository']}: {error.errors()[0]['msg']}") from None


def _refuse_other_content(path: Path, made: Lock) -> None:
    """A commit has one content: who serves another one is not to be believed without a look.

    Raises:
        FleetError: the lock that is there says otherwise of the same commit, or is no lock.
    """
    if not path.exists():
        return
    before = read_lock(path)
    if (before.repository, before.revision) != (made.repository, made.revision):
        return
    known = {file.path: file for file in before.files}
    for file in made.files:
        if known.get(file.path, file) != file:
            raise FleetError(
                f"{path}: says that {file.path} of {made.repository} at {made.revision} has the "
                f"SHA-256 {known[file.path].sha256}, and the hub says {file.sha256} now. The "
                "content of a commit does not change: find out who is right. To believe the hub, "
                "delete the file and run this again; nothing was written"
            )


COMMANDS = (weights_group,)

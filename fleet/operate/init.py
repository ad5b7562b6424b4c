"""`fleet init`: a directory of an operator's own, with what pyinfra and `fleet` need there."""

from __future__ import annotations

from pathlib import Path

import click

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.errors import FleetError
from fleet.version import release

_STARTER = Path(__file__).parent / "starter"
# File there to file of the product. The example fleet is the product's own.
_FILES = {
    "README.md": _STARTER / "README.md",
    "requirements.txt": _STARTER / "requirements.txt",
    ".gitignore": _STARTER / "gitignore",
    "config.py": _STARTER / "config.py",
    "deploy.py": _STARTER / "deploy.py",
    "pipeline.gitlab-ci.yml": _STARTER / "pipeline.gitlab-ci.yml",
    "inventory/prod.py": PRODUCT_ROOT / "inventory" / "prod.py",
    "group_data/all.py": PRODUCT_ROOT / "group_data" / "all.py",
    "group_data/prod.py": PRODUCT_ROOT / "group_data" / "prod.py",
}
# The version is put in here alone; the others are as they are.
_WITH_VERSION = {"README.md", "requirements.txt"}


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Make DIRECTORY one to work in: a repository of your own, beside the product.

    \b
    fleet init ~/our-fleet && cd ~/our-fleet

    It gets an example inventory, group_data, deploy.py, config.py, .gitignore, a README, a
    pipeline for GitLab and a requirements.txt with this version. Nothing that is there is changed:
    a file of one of these names is refused.
    """
    if directory.exists() and not directory.is_dir():
        raise FleetError(f"{directory}: not a directory; name another one")
    there = sorted(name for name in _FILES if (directory / name).exists())
    if there:
        raise FleetError(
            f"{directory}: {', '.join(there)}: there already, and left as it is; name another "
            "directory, or move what is there"
        )
    for name, source in _FILES.items():
        text = source.read_text()
        if name in _WITH_VERSION:
            text = text.replace("{version}", release())
        try:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        except OSError as error:
            raise FleetError(f"{directory / name}: {error.strerror}") from None
    click.echo(f"{directory}: {len(_FILES)} files of llm-fleet {release()}. Next:")
    click.echo(f"    cd {directory} && git init")
    click.echo(f"    put the wheel of {release()} into dist/, as README.md says; commit it too")
    click.echo("    edit inventory/prod.py and group_data/prod.py")
    click.echo("    fleet check inventory/prod.py && pyinfra inventory/prod.py deploy.py")

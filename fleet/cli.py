"""`fleet`: what an operator asks of an inventory besides deploying it with pyinfra.

A command for the whole fleet is a module of `fleet/operate/`; what is asked of one capability is in
`fleet/<capability>/cli.py`.
"""

from __future__ import annotations

import click

from fleet.capabilities import CAPABILITIES
from fleet.operate.check import check
from fleet.operate.command import Commands
from fleet.operate.deploy import deploy
from fleet.operate.doctor import doctor
from fleet.operate.drift import drift
from fleet.operate.init import init
from fleet.operate.logs import logs
from fleet.operate.remove import remove
from fleet.operate.secrets import secrets
from fleet.operate.status import status
from fleet.operate.usage import usage
from fleet.operate.verify import verify
from fleet.version import version


def _say_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        click.echo(f"llm-fleet {version()}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version,
    help="Show the version, and the commit of the checkout.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context) -> None:
    """Deploy, inspect and use a fleet of LLM servers.

    INVENTORY is the file that declares the fleet, such as inventory/prod.py, and HOST a name in it.
    Each command ends with a status: 0 good, 1 findings, 2 could not tell, 130 interrupted.
    docs/operating/deploying.md has completion for the shell, and what --json has in common.
    """
    context.obj = CAPABILITIES


for _command in (
    init,
    check,
    deploy,
    drift,
    secrets,
    remove,
    status,
    usage,
    logs,
    doctor,
    verify,
    *(command for item in CAPABILITIES for command in item.commands),
):
    main.add_command(_command)

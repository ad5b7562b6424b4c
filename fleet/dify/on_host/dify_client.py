"""Dify's API as a deploy needs it: owner, plugin, models, apps, keys; looked at, then changed.

usage: dify_client.py check|apply|chat|prints CONFIG

Runs on the host, as root, with the standard library only. CONFIG is JSON with secrets in it, mode
0600. `check` changes nothing and prints {"pending": [reason, ...]}; `apply` does what `check` would
list, a line of progress for each; `chat` asks the sample apps a question, whole and streamed;
`prints` tells the hashes of their API keys.
Observed answers of the real API decide what counts as what; docs/decisions/0010-dify.md has them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import ProgramError, log, say
from dify_apps import Apps
from dify_console import Dify, DifyError, dify_of
from dify_freeze import unfrozen
from dify_models import Models
from dify_owner import Owner
from dify_plugin import Plugin


@dataclass(frozen=True)
class Step:
    """One thing of Dify's: what looks at it, and what changes it.

    Where `opens_the_rest`, nothing that comes later can be looked at before it is done.
    """

    problem: Callable[[], str | None]
    do: Callable[[], None]
    opens_the_rest: bool = False


def steps(dify: Dify) -> Iterator[Step]:
    """Every step after the login."""
    plugin, models, apps = Plugin(dify), Models(dify), Apps(dify)
    # Without the plugin Dify knows no provider that could be asked for its models.
    yield Step(plugin.problem, plugin.do_plugin, opens_the_rest=True)
    yield Step(plugin.auto_upgrade_problem, plugin.do_auto_upgrade)
    for model in dify.config["models"]:
        yield Step(partial(models.problem, model), partial(models.do_model, model))
    yield Step(models.default_problem, models.do_default)
    for app in dify.config["apps"]:
        yield Step(partial(apps.problem, app), partial(apps.do_app, app))
        yield Step(partial(apps.key_problem, app), partial(apps.do_key, app))


def check(dify: Dify) -> list[str]:
    """Every reason to change something, found without changing anything."""
    state = dify.setup_state()
    if state is None:
        return ["Dify does not answer"]
    if state == "not_started":
        return ["no owner yet"]
    Owner(dify).login()
    reasons = []
    for step in steps(dify):
        if reason := step.problem():
            reasons.append(reason)
            if step.opens_the_rest:
                break
    return reasons


def apply(dify: Dify) -> None:
    """Have Dify as declared; each step that changed something is checked again."""
    owner = Owner(dify)
    if dify.wait_ready() == "not_started":
        say("making the owner's account")
        owner.do_setup()
        dify.memory.forget("refused")
    owner.login()
    for step in steps(dify):
        reason = step.problem()
        if reason is None:
            continue
        say(reason)
        step.do()
        if left := step.problem():
            raise DifyError(f"{left}, after it was changed")


def chat(dify: Dify) -> None:
    """Have every sample app answer; say what it said."""
    dify.wait_ready()
    apps = Apps(dify)
    for app in dify.config["apps"]:
        whole, streamed = apps.chat(app)
        if not whole.strip() or not streamed.strip():
            raise DifyError(f"app {app['name']!r}: an empty answer")
        say(f"app {app['name']!r}: {' '.join(streamed.split())[:200]}")


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    command, config = arguments
    dify = dify_of(config)
    try:
        if command == "check":
            # Of the stack: beside the memory is what tells of a backup.
            root = Path(dify.config["memory"]).parent
            say(json.dumps({"pending": unfrozen(root, partial(check, dify))}))
        elif command == "prints":
            hashed = {
                k: hashlib.sha256(v.encode()).hexdigest() for k, v in dify.keys.values.items()
            }
            say(json.dumps(hashed))
        else:
            {"apply": apply, "chat": chat}[command](dify)
    except (ProgramError, OSError, http.client.HTTPException) as error:
        log(f"Dify: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

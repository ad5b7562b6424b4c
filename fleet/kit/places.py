"""Directories that services are given, without root acting below what a service can change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.commands import Commands
from fleet.kit.facts.places import Place, Places
from fleet.kit.refuse import refusal

# What a new file system has, and nobody has put there.
_NOBODYS = frozenset({"lost+found"})


@dataclass(frozen=True)
class Directory:
    """A directory of a service: its owner, and the setting that names it (its path, if none does).

    One that is root's is taken over for another `user` when it holds nothing but `may_hold`.
    `hidden` are directories whose content the service is not shown.
    """

    setting: str
    path: str
    user: str = "root"
    may_hold: frozenset[str] = frozenset()
    hidden: tuple[str, ...] = ()


def problem_of(directory: Directory, place: Place) -> str | None:
    """Why the host's `place` cannot be `directory`, with the fix; None when it can."""
    path, user = place.path, directory.user
    where = path if place.resolved == path else f"{path} (which is {place.resolved})"
    named = where if directory.setting == path else f"{directory.setting} = {where}"
    if why := _unfit(directory, place):
        return f"{named}: {why}"
    if place.kind and place.user not in ("root", user):
        return (
            f"{named}: belongs to {place.user}; if it is meant, run there: chown {user}: "
            f"{place.resolved}, or name another directory"
        )
    others = [name for name in place.holds if name not in _NOBODYS | directory.may_hold]
    if place.kind and place.user != user and not place.roots_alone:
        return (
            f"{named}: belongs to root below a directory of {user}, who makes what is there; run "
            f"there: chown -R {user}: {place.resolved}"
        )
    if place.kind and place.user != user and others:
        listed = ", ".join(others[:5])
        return (
            f"{named}: belongs to root and holds {listed}, which is not {user}'s; name an empty "
            f"directory, or if it is meant, run there: chown {user}: {place.resolved}"
        )
    return None


def _unfit(directory: Directory, place: Place) -> str | None:
    path, user = place.path, directory.user
    if place.broken:
        return f"{place.broken} is a link that leads nowhere; mount what it leads to"
    if place.kind and not place.is_directory:
        return f"is a {place.kind}; move it away, or name another directory"
    if place.linked_by:
        return (
            f"the way there has a link of {_listed(place.linked_by)}, who could turn it at any "
            "time; remove it, or have root make it"
        )
    if others := place.writers - {user}:
        return (
            f"{_listed(others)} can change a directory above it, and so what it is; give those "
            f"to root alone (`namei -l {path}` shows them), or name another directory"
        )
    if hidden := next((top for top in directory.hidden if _is_below(place.resolved, top)), None):
        return f"is under {hidden}, which the service's unit is not shown; use another disk"
    return None


def _is_below(path: str, top: str) -> bool:
    return f"{path}/".startswith(f"{top}/")


def _listed(users: Collection[str]) -> str:
    return ", ".join(sorted(users))


@operation()
def have_directory(directory: Directory, group: str, mode: str) -> Commands:
    """Have `directory` with this group and octal mode; a link to one is taken as it is.

    Below a directory of its user, who could turn a path under root's hands, it is made by that
    user. What is refused of a host before anything is changed is looked at again.
    """
    place = host.get_fact(Places, paths=[directory.path])[directory.path]
    if problem := problem_of(directory, place):
        yield refusal(f"{host.name}: {problem}")
        return
    if (place.user, place.group, place.mode) == (directory.user, group, mode):
        host.noop(f"{directory.path} as declared")
        return
    target = QuoteString(place.resolved)
    parent = QuoteString(place.resolved.rpartition("/")[0] or "/")
    if not place.roots_alone:
        made = StringCommand("umask 022; mkdir -p", target, "&& chmod", mode, target)
        yield StringCommand(*as_user(directory.user), "sh -c", QuoteString(made.get_raw_value()))
    else:
        yield StringCommand(
            "umask 022; mkdir -p", parent, "&& install -d -o", directory.user, "-g", group,
            "-m", mode, target,
        )  # fmt: skip


def as_user(user: str) -> tuple[str, ...]:
    """Words before a command that runs as `user`, without root's rights and environment."""
    return ("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--")

"""Where the secrets of an inventory are kept: a store for each fleet, and none for two."""

from __future__ import annotations

from pathlib import Path

from fleet.kit.errors import FleetError

_ELSEWHERE = "elsewhere"


def store_of(file: Path | None, project: Path) -> Path:
    """The directory for secrets of the inventory `file`, below `.secrets` of `project`.

    It is called as the file is below `inventory/`: `.secrets/prod`, `.secrets/staging/hosts`. That
    of a file elsewhere has the file's whole path, and one for hosts that are in no file is
    `default`.

    Raises:
        FleetError: there is none yet, but one that is called by the file's last name alone, as all
            stores once were, whichever of several inventories had it.
    """
    stores = project / ".secrets"
    if file is None:
        return stores / "default"
    store = stores / _name(file.resolve(), project.resolve())
    shared = stores / file.stem
    if store == shared or store.exists() or not shared.is_dir():
        return store
    raise FleetError(
        f"{file}: its secrets are kept in {store} now, which is not there. {shared} was for every "
        f"inventory called {file.name}; if this fleet's keys are in it: mkdir -m 700 -p "
        f"{store.parent} && cp -a {shared} {store}; if this fleet is new: mkdir -m 700 -p {store}"
    )


def _name(file: Path, project: Path) -> Path:
    for folder, prefix in ((project / "inventory", Path()), (project, Path(_ELSEWHERE))):
        if file.is_relative_to(folder):
            return prefix / file.relative_to(folder).with_suffix("")
    return Path(_ELSEWHERE, *file.with_suffix("").parts[1:])

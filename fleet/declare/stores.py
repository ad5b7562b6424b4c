"""Where the secrets of an inventory are kept: a store for each fleet, and none for two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore
from fleet.kit.storage import AgeFiles, FromCommand, PlainFiles, Storage

_ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Stores:
    """Every kind of store that a fleet may have; what lies on the disk says which it has."""

    name: str
    plain: PlainFiles
    age: AgeFiles
    command: FromCommand

    def present(self) -> tuple[Storage, ...]:
        """Those that are there: more than one while the secrets are being moved."""
        found: list[Storage] = []
        if self.plain.names():
            found.append(self.plain)
        found += [item for item in (self.age, self.command) if item.root.exists()]
        return tuple(found)


def stores_of(file: Path | None, project: Path) -> Stores:
    """The stores that the inventory `file` may have.

    Plain files are below `.secrets` of `project`, which git ignores. What may be committed is below
    `secrets`: `secrets/prod.age/` has the secrets encrypted, `secrets/prod.command` the command
    that prints them.

    Raises:
        FleetError: as `store_of`, where no other store is there than a plain one.
    """
    name = Path("default") if file is None else _name(file.resolve(), project.resolve())
    committed = project / "secrets" / name.parent
    age = AgeFiles(committed / f"{name.name}.age")
    command = FromCommand(committed / f"{name.name}.command", project)
    is_other = age.root.exists() or command.root.exists()
    plain = project / ".secrets" / name if is_other else store_of(file, project)
    return Stores(name.name, PlainFiles(plain), age, command)


def open_store(file: Path | None, project: Path) -> SecretStore:
    """The secrets of the inventory `file`, from the one store that it has.

    Raises:
        FleetError: it has two, or as `store_of`.
    """
    stores = stores_of(file, project)
    present = stores.present() or (stores.plain,)
    if len(present) > 1:
        both = " and ".join(f"{item.root} ({item.kind})" for item in present)
        raise FleetError(
            f"{file}: its secrets are in {both}, and only one can count; if a move was cut short, "
            f"run the same `fleet secrets init {file} ...` again, else remove the wrong one"
        )
    return SecretStore(present[0].root, present[0], stores.name)


def store_of(file: Path | None, project: Path) -> Path:
    """The directory for plain secrets of the inventory `file`, below `.secrets` of `project`.

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

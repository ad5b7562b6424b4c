"""The programs that run on hosts, as they lie there."""

from pathlib import Path

from fleet.kit.host_programs import program_files

# Nothing of whoever runs the tests, and no package: what a host has is the standard library.
PYTHON_OPTIONS = ("-E", "-s", "-S")


def laid_out(folder: Path, room: str, name: str) -> Path:
    """The program `name` of `room` with its modules, flat in `folder`; its path."""
    folder.mkdir(exist_ok=True)
    for file in program_files(room, name):
        (folder / Path(file.path).name).write_text(file.text)
    return folder / f"{name}.py"

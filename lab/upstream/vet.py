"""Judge the project's Go programs: `python -m lab.upstream.vet FOLDER ...`, of `make check`."""

import sys
from pathlib import Path

from lab.upstream import release


def main() -> None:
    """Vet every folder named, or end with what is wrong in the first that is not right."""
    for folder in sys.argv[1:]:
        release.vet(Path(folder), Path.home() / ".cache" / "go-build")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))

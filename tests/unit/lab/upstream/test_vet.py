"""What `make check` says of a Go program."""

from pathlib import Path

import pytest

from lab.upstream import release

GOOD = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Printf("%d\\n", 1) }\n'


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (GOOD.replace("1)", '"one")'), "Printf format %d has arg"),
        (GOOD.replace("func main", "func  main"), "main.go"),
        (GOOD.replace("main()", "main("), "syntax error|expected"),
    ],
    ids=["wrong", "not formatted", "no Go"],
)
def test_a_fault_is_told(tmp_path: Path, source: str, said: str) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "main.go").write_text(source)
    cache = Path.home() / ".cache" / "go-build"
    with pytest.raises(RuntimeError, match=said):
        release.vet(program, cache)
    (program / "main.go").write_text(GOOD)
    release.vet(program, cache)

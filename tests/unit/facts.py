"""What tests of facts have in common."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase


def ask(fact: FactBase[Any], **arguments: Any) -> Any:
    """Run the fact's command in sh and parse its output, as pyinfra does on a host."""
    command = fact.command(**arguments)
    assert not isinstance(command, str)
    output = subprocess.run(
        ["sh", "-c", command.get_raw_value()], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return fact.process(output) if output else fact.default()


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Properties of the only unit, which a `systemctl show` on PATH prints as the real one does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    path = tools / "systemctl"
    path.write_text(
        "#!/usr/bin/python3\n"
        "import json, sys\n"
        f"properties = json.load(open({str(tools / 'properties')!r}))\n"
        "for flag, name in zip(sys.argv, sys.argv[1:]):\n"
        "    if flag == '-p':\n"
        "        value = properties.get(name, '')\n"
        "        print(value if '--value' in sys.argv else name + '=' + value)\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    class Saved(dict[str, str]):
        def update(self, *args: Any, **kwargs: Any) -> None:
            super().update(*args, **kwargs)
            (tools / "properties").write_text(json.dumps(self))

    properties = Saved()
    properties.update()
    return properties

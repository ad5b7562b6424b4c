"""pyinfra's command line, which writes to the file COUNTED how many commands each host was sent."""

import collections
import json
import os
from pathlib import Path
from typing import Any

from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput
from pyinfra_cli.main import main

_counts: collections.Counter[str] = collections.Counter()


class _Counted(SSHConnector):
    def run_shell_command(self, *arguments: Any, **options: Any) -> tuple[bool, CommandOutput]:
        _counts[self.host.name] += 1
        return _run(self, *arguments, **options)


_run = SSHConnector.run_shell_command
SSHConnector.run_shell_command = _Counted.run_shell_command  # type: ignore[assignment, method-assign]
try:
    main()
finally:
    Path(os.environ["COUNTED"]).write_text(json.dumps(_counts))

"""What the rendered ruleset does to packets: the kernel's own filter, in namespaces."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from fleet.firewall.files import ruleset_file
from tests.fleets import EDGE, GPU, fleet_of
from tests.unit.firewall.namespaces import run

# After our own chains: it counts what they let in, and what they let through.
_WATCH = """
nft 'table inet seen { chain i { type filter hook input priority 300; }
chain f { type filter hook forward priority 300; }; }'
seen() { # SINCE WHICH RULE
    nft "add rule inet seen ${2:-i} $1 counter"
}
count() { nft list table inet seen | grep -c 'packets [1-9]' || :; }
cat > "$TMPDIR/udp.py" <<'END'
import socket, sys
own, to, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", own))
s.sendto(b"x", (to, port))
END
udp() { python3 "$TMPDIR/udp.py" "$@"; }
from_caller() { on_caller python3 "$TMPDIR/udp.py" "$@"; sleep 0.05; }
"""


def seen(tmp_path: Path, script: str, **data: Any) -> bool:
    """Whether a packet came in that `script` has `seen` wait for; `rules` loads the ruleset."""
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], **data}), "edge": EDGE})
    file = tmp_path / "rules.nft"
    file.write_text(ruleset_file(fleet["gpu1"], fleet).text)
    words = f"export TMPDIR={shlex.quote(str(tmp_path))}\nrules() {{ nft -f {file}; }}\n"
    return run(f"{words}{_WATCH}{script}\ncount") == ["1"]

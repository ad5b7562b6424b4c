"""``python -m lab.upstream --root ROOT --listen HOST:PORT``: serve a built web root."""

import argparse
import contextlib
import signal
from pathlib import Path

from lab.upstream.server import Server


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lab.upstream", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder prepare() returned")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = Server(arguments.root, host.strip("[]"), int(port))
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()

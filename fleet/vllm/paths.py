"""Where vLLM is kept on a host, and the units of its servers."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import LIB

VLLM_USER = "vllm"
# What it compiles for the GPUs and the model at hand is kept between starts, a folder a server.
VLLM_CACHE = "/var/cache/vllm"
VLLM_ROOT = "/opt/vllm"
VLLM_CURRENT = f"{VLLM_ROOT}/current"
VLLM_PYTHON = f"{VLLM_CURRENT}/bin/python"
# In a virtual environment that is whole; its content is what it was made of.
VENV_NOTE = ".llm-fleet-lock"
VENV_PROGRAM = f"{LIB}/vllm-venv"
WATCH_PROGRAM = f"{LIB}/vllm_watch.py"
RESTART_PROGRAM = f"{LIB}/vllm-restart"


def server_unit(name: str) -> str:
    """The unit of a server."""
    return f"vllm@{name}.service"


def watch_unit(name: str) -> str:
    """The unit that asks a server whether it still answers."""
    return f"vllm-watch@{name}.service"


def watch_timer(name: str) -> str:
    """What starts that one again and again."""
    return f"vllm-watch@{name}.timer"


def server_container(name: str) -> str:
    """What Docker calls the container of a server."""
    return f"vllm-{name}"


LOGS = Logs(
    units=(server_unit("*"), watch_unit("*")),
)

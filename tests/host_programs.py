"""The programs that run on a host, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PROGRAMS = Path(__file__).resolve().parents[1] / "fleet" / "dify" / "on_host"


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


dify_client = _program("dify_client")
dify_stack = _program("dify_stack")

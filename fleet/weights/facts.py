"""A host's weights compared with what is declared."""

from __future__ import annotations

from fleet.kit.host_programs import program_files
from fleet.kit.loaders import LoaderState


class WeightsState(LoaderState):
    """What the loader of weights says of the host."""

    program = tuple(program_files("weights", "weights_loader"))

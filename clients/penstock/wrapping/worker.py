"""The worker behind `penstock wrap`: asks for simulations and runs the program for each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import penstock
from penstock.errors import LayoutError
from penstock.group import Keeper
from penstock.link import Link
from penstock.simulation import Simulation
from penstock.wrapping.formats import FormatError
from penstock.wrapping.run import ProgramError, ProgramKilled, Run
from penstock.wrapping.scratch import Scratch
from penstock.wrapping.settings import Wrapping
from penstock.wrapping.steps import OutputError
from penstock.wrapping.template import TemplateError, Value

# What ends one simulation with a reason and lets the next one begin.
FAULTS = (ProgramError, OutputError, FormatError, TemplateError, LayoutError, OSError)


def work(wrapping: Wrapping) -> int:
    """Serves simulations until there are no more; the exit code.

    The keeper is forked before ZeroMQ has threads. It ends the program and removes the folder
    however this process ends, so nothing here has to answer signals.
    """
    mark = f"PENSTOCK_WRAPPED={os.urandom(6).hex()}"
    failed = 0
    with Scratch(wrapping.memory) as scratch:
        keeper = Keeper(mark, str(scratch.root))
        try:
            with penstock.connect(parameters=wrapping.parameters) as link:
                unused_told = False
                for sim in link.simulations():
                    if not unused_told:
                        _tell_unused(wrapping, sim.parameters)
                        unused_told = True
                    failed += not _serve(wrapping, link, sim, scratch, mark, keeper)
        finally:
            keeper.close()
    alone = "PENSTOCK_COORDINATOR" not in os.environ
    return 1 if alone and failed else 0


def _serve(
    wrapping: Wrapping, link: Link, sim: Simulation, scratch: Scratch, mark: str, keeper: Keeper
) -> bool:
    """One simulation; False if it failed, with the reason told to the server and the log."""
    shapes = {spec.name: spec.shape for spec in link.specs.values()}
    try:
        with scratch.folder(f"simulation-{sim.id}") as folder:
            values = placeholders(wrapping, sim, folder)
            Run(wrapping, sim, folder, mark, keeper).carry_out(values, shapes)
    except FAULTS as fault:
        print(f"penstock wrap: simulation {sim.id}: {fault}", file=sys.stderr, flush=True)
        if isinstance(fault, ProgramKilled) and "PENSTOCK_AGENT" in os.environ:
            # A worker that is killed does not cost the simulation an attempt, and this one was.
            os.kill(os.getpid(), signal.SIGKILL)
        sim.fail(str(fault))
        return False
    return True


def placeholders(wrapping: Wrapping, sim: Simulation, folder: Path) -> dict[str, Value]:
    """What templates may name; a parameter of the campaign wins over a word of ours."""
    own: dict[str, Value] = {
        "simulation": sim.id,
        "attempt": sim.attempt,
        "seed": sim.seed,
        "role": sim.role,
        "folder": str(folder),
        "here": str(Path.cwd()),
    }
    if wrapping.steps is not None:
        own["steps"] = wrapping.steps
    return {**own, **sim.parameters}


def _tell_unused(wrapping: Wrapping, parameters: Mapping[str, float]) -> None:
    used = set().union(*(text.names for text in wrapping.texts))
    unused = [name for name in parameters if name not in used]
    if unused:
        print(
            f"penstock wrap: no template and no part of the command has ${{{unused[0]}}}; the "
            f"program does not learn of {', '.join(unused)}.",
            file=sys.stderr,
            flush=True,
        )

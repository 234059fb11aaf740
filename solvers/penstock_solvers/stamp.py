"""Sends fields that say what they are, and goes wrong on request; for the tests of the stream.

    stamp[0, 0] = simulation,   stamp[0, 1] = step
    stamp at flat position p >= 2 = ((7919 simulation + 104729 step + 31 p) mod 2^20) / 2^20

simulation is the id, step counts from 0; every value is exact in float32 for ids and steps below
2^24. Field `stamp` (n, n), n >= 2; rows are split over the MPI ranks, if there are several.
Parameters: any, and none is used. Steps of the fault options count from 0 too; faults happen on
rank 0, in every attempt of every simulation unless --only-simulation or --only-attempt says
otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def expected(simulation: int, step: int, n: int) -> Array:
    """The whole field (n, n) of one step of one simulation."""
    position = np.arange(n * n, dtype=np.int64)
    stamp = ((7919 * simulation + 104729 * step + 31 * position) % 2**20) / 2.0**20
    stamp[:2] = simulation, step
    return stamp.reshape(n, n)


def decode(field: Any) -> tuple[int, int]:
    """(simulation, step) that a received field (n, n) claims to be."""
    return int(field[0, 0]), int(field[0, 1])


def hold_interpreter(seconds: float) -> None:
    """Sleeps without letting any other Python thread of this process run."""
    libc = ctypes.PyDLL(None)  # unlike CDLL, it keeps the lock during a call
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        libc.usleep(ctypes.c_uint(int(1e6 * min(left, 0.9)) + 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs simulation after simulation for a campaign, or a single one on its own."""
    import penstock

    options = _parser().parse_args(arguments)
    comm, n = _communicator(), options.n
    rank, size = (comm.rank, comm.size) if comm is not None else (0, 1)
    first, last = n * rank // size, n * (rank + 1) // size
    with penstock.connect(comm, parameters={"p": 0.5}) as link:
        if size > 1 and not options.no_layout:
            link.layout("stamp", global_shape=(n, n), owned=(slice(first, last), slice(None)))
        for sim in link.simulations():
            faulty = options.only_simulation in (None, sim.id)
            faulty = faulty and options.only_attempt in (None, sim.attempt)
            for step in range(options.steps):
                if faulty and step == options.end_at:
                    break
                rows = expected(sim.id, step, n)[first:last]
                _pass_time(options, step)
                if faulty and step == options.fail_at:
                    sim.fail(f"asked to fail at step {step}")  # on all ranks
                    break
                if faulty and rank == 0:
                    _go_wrong(options, sim, step, rows)
                sim.send(float(step), stamp=_spoilt(options, step, rows, faulty and rank == 0, sim))
                if sim.cancelled:
                    break


def _pass_time(options: argparse.Namespace, step: int) -> None:
    """The work of a step: --delay-ms asleep or busy, and --hold-gil-s in one step."""
    if options.busy:
        end = time.perf_counter() + options.delay_ms / 1e3
        while time.perf_counter() < end:
            pass
    elif options.delay_ms > 0:
        time.sleep(options.delay_ms / 1e3)
    if options.hold_gil_s > 0 and step == options.at_step:
        hold_interpreter(options.hold_gil_s)


def _go_wrong(options: argparse.Namespace, sim: Any, step: int, rows: Array) -> None:
    """Faults that replace or come before the sending of a step."""
    if step == options.raise_at:
        raise ArithmeticError(f"asked to raise at step {step} of simulation {sim.id}")
    if step == options.die_at:
        print(f"stamp: asked to die at step {step} of simulation {sim.id}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(17)
    while step == options.silent_at:
        time.sleep(3600)
    if step == options.undeclared_at:
        sim.send(float(step), stamp=rows, undeclared=rows)
    if step == options.twice_at:
        sim.send(float(step), stamp=rows)


def _spoilt(options: argparse.Namespace, step: int, rows: Array, faulty: bool, sim: Any) -> Any:
    """What is sent instead of `rows` (rows, n) when this step is to go wrong."""
    if not faulty:
        return rows
    if step in (options.nan_at, options.inf_at):
        rows[-1, -1] = np.nan if step == options.nan_at else np.inf
    if step == options.differ_at:
        rows[-1, -1] += sim.attempt
    if step == options.wrong_shape_at:
        return rows[:, :-1]
    if step == options.wrong_dtype_at:
        return rows.astype(np.complex128)
    return rows


def _communicator() -> Any:
    """MPI.COMM_WORLD, or None where mpi4py is missing."""
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=8, help="side of the field; default 8")
    parser.add_argument("--steps", type=int, default=10, help="steps; default 10")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="time that each step takes")
    parser.add_argument("--busy", action="store_true", help="compute in the delay, do not sleep")
    parser.add_argument("--hold-gil-s", type=float, default=0.0, help="hold the interpreter lock")
    parser.add_argument("--at-step", type=int, default=1, help="the step of --hold-gil-s")
    faults = {
        "nan": "send a NaN",
        "inf": "send an infinite value",
        "wrong-shape": "send a column too few",
        "wrong-dtype": "send complex numbers",
        "undeclared": "send a field that no campaign declares",
        "twice": "send the step twice",
        "differ": "send a value that depends on the attempt",
        "die": "exit with code 17",
        "silent": "stop sending, stay alive",
        "raise": "raise an exception",
        "fail": "call sim.fail",
        "end": "end the simulation before this step",
    }
    for fault, text in faults.items():
        parser.add_argument(f"--{fault}-at", type=int, default=-1, metavar="STEP", help=text)
    parser.add_argument("--no-layout", action="store_true", help="leave out link.layout")
    parser.add_argument("--only-simulation", type=int, help="go wrong in this simulation alone")
    parser.add_argument("--only-attempt", type=int, help="go wrong in this attempt alone")
    return parser


if __name__ == "__main__":
    main()

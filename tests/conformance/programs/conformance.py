"""The conformance program in Python; the kit runs it, see ../README.md for what it has to do."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import penstock

DEFAULTS = {"steps": 42.0, "fail_at": -1.0, "lay_at": -1.0, "timed": 1.0, "pause_s": 0.0, "a": 0.0,
            "b": 0.0}  # fmt: skip


def communicator() -> Any:
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD


def main() -> None:
    fields = sys.argv[sys.argv.index("--fields") + 1]
    comm = communicator()
    rank, size = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())
    mine = np.array([i for i in range(4, -1, -1) if rank == (0 if i % 4 else size - 1)], np.int64)

    def rows(n: int) -> slice:
        return slice(n * rank // size, n * (rank + 1) // size)

    u = 6.0 * np.arange(4)[rows(4), None] + np.arange(6)
    x = 256.0 * np.arange(64)[rows(64), None] + np.arange(256)
    with penstock.connect(comm, parameters={"steps": 3.0}) as link:
        for name, shape in (("u", (4, 6)), ("v", (5,)), ("w", (5,)), ("x", (64, 256))):
            if name in fields:
                owned = (rows(shape[0]), slice(None)) if name in "ux" else mine
                link.layout(name, global_shape=shape, owned=owned)
        for sim in link.simulations():
            p = {**DEFAULTS, **sim.parameters}
            if "v" in fields:
                sim.inputs(v=(1 + sim.seed % 64) * 2.0 ** (2 - mine))
            for k in range(int(p["steps"])):
                if k == p["fail_at"]:
                    sim.fail(f"asked to fail at step {k}")
                    break
                if k == p["lay_at"]:
                    link.layout("u", global_shape=(4, 6), owned=(rows(4), slice(None)))
                step = {"u": p["a"] + 1000.0 * k + u + (sim.seed % 64) / 64}
                if "w" in fields:
                    step["w"] = (-1.0) ** k * p["b"] * 2.0**-mine
                if "x" in fields:
                    step["x"] = sim.empty("x", x.shape)
                    step["x"][:] = k + x
                sim.send(k / 100 if p["timed"] else None, **step)
                time.sleep(p["pause_s"])
                if sim.cancelled:
                    break


if __name__ == "__main__":
    try:
        main()
    except penstock.PenstockError as error:
        print(error, file=sys.stderr)
        sys.exit(3)

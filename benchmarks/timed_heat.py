"""The FEniCSx heat solver with a clock around what streaming adds; started by overhead.py.

Runs in the solvers' interpreter. Of two steps one is sent with the clock running; before the other
is sent, its field is copied once with the clock running, into memory that is written as seldom as a
client's. So both meet what a step of the solver leaves in the processor's caches. Rank 0 prints one
line of JSON, times in seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import penstock
from penstock_solvers.heat import Heat, solve

FIRST = 0.1  # of the steps are not looked at: they open the simulation
COPIED_BYTES = 1 << 23  # before memory is written again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, required=True, help="nodes on a side")
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    comm, n = MPI.COMM_WORLD, options.n
    setup = Heat(comm, n)
    times: dict[str, list[float]] = {"sent_s": [], "asked_s": [], "copied_s": [], "steps_s": []}
    memory: np.ndarray | None = None
    threads_s, first, clock = 0.0, round(FIRST * options.steps), time.perf_counter
    with penstock.connect(comm) as link:
        if comm.size > 1:
            link.layout("temperature", global_shape=(n, n), owned=setup.square.owned)
        for sim in link.simulations():
            ended = clock()
            for step, (t, u) in enumerate(solve(sim.parameters, setup, options.steps)):
                if memory is None:
                    rows = max(2, COPIED_BYTES // (u.size * 4))
                    memory = np.ones((rows, *u.shape), dtype="float32")  # the pages are there
                if step % 2:
                    began = clock()
                    memory[step // 2 % len(memory)] = u
                    copied = clock()
                    times["copied_s"].append(copied - began)
                    sim.send(t, temperature=u)
                    if sim.cancelled:
                        break
                    ended = clock()
                    continue
                began = clock()
                sim.send(t, temperature=u)
                sent = clock()
                cancelled = sim.cancelled
                before, ended = ended, clock()
                if cancelled:
                    break
                times["sent_s"].append(sent - began)
                times["asked_s"].append(ended - sent)
                times["steps_s"].append(ended - before)
                if step <= first:
                    threads_s = cpu_of_threads_s()
            threads_s = (cpu_of_threads_s() - threads_s) / (options.steps - first)
    if comm.rank == 0:
        later = {name: taken[-(-first // 2) :] for name, taken in times.items()}
        print(json.dumps({**later, "threads_s": threads_s}), flush=True)


def cpu_of_threads_s() -> float:
    """Of ZeroMQ's threads of this process."""
    taken_ns = 0
    for task in Path("/proc/self/task").iterdir():
        if "ZMQbg" in (task / "comm").read_text(encoding="utf-8"):
            taken_ns += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return 1e-9 * taken_ns


if __name__ == "__main__":
    main()

"""The FEniCSx heat solver with a clock around what streaming adds; started by overhead.py.

Runs in the solvers' interpreter. Rank 0 prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import penstock
from penstock.simulation import Simulation
from penstock_solvers import heat

COPIES = 200
FIRST = 0.1  # of the steps are not looked at: they open the simulation

ends: list[float] = []  # of steps
sent: list[float] = []  # seconds in send, by step
asked: list[float] = []  # in cancelled
threads: list[float] = []  # processor time of the threads, after FIRST and at the end
n_bytes = 0  # that this rank sends with a step

_send, _cancelled, _close = Simulation.send, Simulation.cancelled, penstock.Link.close


def send(self: Simulation, t: float, **fields: Any) -> None:
    global n_bytes
    began = time.perf_counter()
    _send(self, t, **fields)
    sent.append(time.perf_counter() - began)
    n_bytes = 4 * sum(np.size(values) for values in fields.values())


def cancelled(self: Simulation) -> bool:
    began = time.perf_counter()
    answer = bool(_cancelled.fget(self))  # type: ignore[attr-defined]
    asked.append(time.perf_counter() - began)
    if len(asked) == first():
        threads.append(cpu_of_threads())
    ends.append(time.perf_counter())
    return answer


def close(self: penstock.Link) -> None:
    """The last moment at which the threads can be asked what they used."""
    threads.append(cpu_of_threads())
    _close(self)


def first() -> int:
    return max(1, round(FIRST * int(sys.argv[sys.argv.index("--steps") + 1])))


def cpu_of_threads() -> float:
    """Seconds of ZeroMQ's threads of this process."""
    taken_ns = 0
    for task in Path("/proc/self/task").iterdir():
        if "ZMQbg" in (task / "comm").read_text(encoding="utf-8"):
            taken_ns += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return 1e-9 * taken_ns


def copy_s() -> float:
    source, target = np.ones(n_bytes, "u1"), np.zeros(n_bytes, "u1")
    taken = []
    for _ in range(COPIES):
        began = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def main() -> None:
    Simulation.send = send  # type: ignore[method-assign, assignment]
    Simulation.cancelled = property(cancelled)  # type: ignore[assignment, method-assign]
    penstock.Link.close = close  # type: ignore[method-assign]
    heat.main()
    if heat.MPI.COMM_WORLD.rank == 0:
        skip = first()
        result = {
            "sent_s": sent[skip:],
            "asked_s": asked[skip:],
            "steps_s": np.diff(ends[skip - 1 :]).tolist(),
            "copy_s": copy_s(),
            "threads_s": (threads[1] - threads[0]) / (len(ends) - skip),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""A thousand connections to one shard: everything arrives, exactly once, and what it costs.

Client programs with a hundred links each (a link is a worker with its own connection) take one
simulation a link from the coordinator and send 50 kB a step, one step of every link in turn. Then
the slab is read: every step of every simulation is there once, with the content that was sent.
ours: the steps that are right; peer: those that were asked for. Beside it the receiver's memory a
connection, without the slab, and the share of one core that it needed. holds: all steps, none
twice, none wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from stage import Served, serve

from penstock_server.config import parse
from penstock_server.slab import COMMITTED

VALUES = 12_500  # 50 kB
LINKS = 100  # of a program

CAMPAIGN = """
name = "connections"
[solver]
command = ["true"]
workers = {clients}
steps = {steps}
[design]
simulations = {clients}
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.u]
shape = [{values}]
[reservoir]
capacity = {capacity}
[training]
batch_size = 10
"""

PROGRAM = """
import os, resource, sys
import numpy as np
import penstock
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a link has a dozen
first, n, steps, values = map(int, sys.argv[1:])
links = []
for number in range(first, first + n):
    os.environ["PENSTOCK_WORKER"] = f"w{number}"
    links.append(penstock.connect())
sims = [link.simulation() for link in links]
print("connected", flush=True)
sys.stdin.readline()
for step in range(steps):
    for sim in sims:
        sim.send(float(step), u=np.full(values, 1000 * sim.id + step, "f4"))
for link in links:
    link.close()
"""


def memory(pid: int) -> int:
    """Bytes of a process's own, shared memory not counted."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def right_steps(served: Served, clients: int, steps: int) -> int:
    """Raises AssertionError for a step that is there twice or is not what was sent."""
    slab = served.slab
    held = np.flatnonzero(slab.descriptor["state"] == COMMITTED)
    rows = slab.descriptor[held]
    places = set(zip(rows["simulation"].tolist(), rows["segment"].tolist()))
    assert len(places) == len(held), "a step is there twice"
    sent = 1000.0 * rows["simulation"] + rows["segment"]
    u = slab.fields["u"][held, 0]
    assert np.array_equal(u.min(axis=1), sent), "a step is not what was sent"
    assert np.array_equal(u.max(axis=1), sent), "a step is not what was sent"
    assert places <= {(s, k) for s in range(clients) for k in range(steps)}
    return len(places)


def measure(clients: int, steps: int, say: Any) -> dict[str, Any]:
    text = CAMPAIGN.format(clients=clients, steps=steps, values=VALUES, capacity=clients * steps)
    with serve(parse(text)) as served:
        receiver = psutil.Process(served.receiver.pid)
        before = memory(receiver.pid)
        programs = []
        for first in range(0, clients, LINKS):
            n = min(LINKS, clients - first)
            programs.append(
                served.stage.start("-c", PROGRAM, first, n, steps, VALUES, **served.worker("w"))
            )
        for program in programs:
            assert program.stdout is not None and program.stdout.readline() == "connected\n"
        say(f"{clients} workers have a simulation each.")
        began, used = time.perf_counter(), sum(receiver.cpu_times()[:2])
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        served.stage.until(lambda: served.admitted() == clients * steps)
        seconds = time.perf_counter() - began
        share = (sum(receiver.cpu_times()[:2]) - used) / seconds
        at_work = memory(receiver.pid)
        for program in programs:
            program.wait(60)
        found = right_steps(served, clients, steps)
    return {
        "steps": clients * steps,
        "found": found,
        "seconds": seconds,
        "gb_per_s": clients * steps * VALUES * 4e-9 / seconds,
        "bytes_per_connection": (at_work - before) / clients,
        "core_share": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="200 clients, 5 steps")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.steps = 200, 5

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    row = measure(options.clients, options.steps, say)
    say(
        f"{row['found']} of {row['steps']} steps, each once, in {row['seconds']:.1f} s "
        f"({row['gb_per_s']:.2f} GB/s); {row['bytes_per_connection'] / 1000:.0f} kB a connection, "
        f"{row['core_share']:.0%} of a core."
    )
    print(
        json.dumps(
            {
                "name": "connections",
                "ours": row["found"],
                "peer": row["steps"],
                "ratio": row["found"] / row["steps"],
                "unit": f"steps that arrived once, from {options.clients} connections",
                "holds": row["found"] == row["steps"],
                "rows": [row],
            }
        )
    )


if __name__ == "__main__":
    main()

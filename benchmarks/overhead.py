"""What streaming costs the solver: time inside `send`, and the processor time of its threads.

The heat equation (FEniCSx) on its MPI ranks streams to a real receiver. Measured in rank 0: the
time inside `sim.send` and `sim.cancelled` (median and 99th percentile), the processor time of
ZeroMQ's threads, and what is left of the time per step, which is the solver's own. Steps go by the
way that a solver on the server's host takes, or over TCP (--tcp).

ours: the median and the threads' time, in microseconds; peer: one copy of the field into the dtype
that is sent, after a step of the solver as `send` is, every other step of the same run. holds: at
100 x 100 ours below the copy plus 20 microseconds, at 1000 x 1000 below 1 % of the solver's time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from stage import serve

from penstock_server.config import parse
from penstock_server.interpreters import solver_command

EXTRA_US, SHARE = 20.0, 0.01

CAMPAIGN = """
name = "overhead"
[solver]
command = ["{{python}}", "{program}", "--n", "{n}", "--steps", "{steps}"]
mpi_ranks = {ranks}
workers = 1
steps = {steps}
[design]
simulations = 1
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{n}, {n}]
[reservoir]
capacity = {steps}
[stream]
shared_memory = {same_host}
[training]
batch_size = 1
"""

PROGRAM = Path(__file__).with_name("timed_heat.py")


def measure(n: int, ranks: int, steps: int, tcp: bool) -> dict[str, Any]:
    """One run of the solver; times in microseconds."""
    same_host = str(not tcp).lower()
    campaign = parse(
        CAMPAIGN.format(n=n, ranks=ranks, steps=steps, program=PROGRAM, same_host=same_host)
    )
    command = solver_command(campaign)
    with serve(campaign) as served:
        process = served.stage.start_command(command.argv, {**command.env, **served.worker("w0")})
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        served.stage.until(lambda: served.admitted() == steps)
    told = json.loads(lines[-1])
    inside = sorted(a + b for a, b in zip(told["sent_s"], told["asked_s"]))
    step = statistics.median(told["steps_s"])
    send, threads = statistics.median(inside), told["threads_s"]
    solver = step - send
    return {
        "n": n,
        "ranks": ranks,
        "ours_us": 1e6 * (send + threads),
        "send_us": 1e6 * send,
        "cancelled_us": 1e6 * statistics.median(told["asked_s"]),
        "send_p99_us": 1e6 * inside[min(len(inside) - 1, round(0.99 * len(inside)))],
        "copy_us": 1e6 * statistics.median(told["copied_s"]),
        "threads_us": 1e6 * threads,
        "solver_us": 1e6 * solver,
        "share": (send + threads) / solver,
    }


def holds(row: dict[str, Any]) -> bool:
    if row["n"] >= 1000:
        return bool(row["share"] < SHARE)
    return bool(row["ours_us"] < row["copy_us"] + EXTRA_US)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="runs of each case")
    parser.add_argument("--tcp", action="store_true", help="over TCP, instead of lent memory")
    parser.add_argument("--quick", action="store_true", help="100 x 100 alone, two runs")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    cases = [(100, ranks, 2000) for ranks in (1, 2)]
    if not options.quick:
        cases += [(1000, ranks, 20) for ranks in (1, 2)]
    rows = []
    for n, ranks, steps in cases:
        pairs = 2 if options.quick else options.pairs
        runs = [measure(n, ranks, steps, options.tcp) for _ in range(pairs)]
        row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(row)
        if not options.json:
            print(
                f"{n} x {n}, {ranks} ranks: send {row['send_us']:.0f} us (99 %: "
                f"{row['send_p99_us']:.0f}; cancelled has {row['cancelled_us']:.0f}), a copy "
                f"{row['copy_us']:.0f}, threads {row['threads_us']:.0f}, "
                f"the solver {row['solver_us']:.0f}; {row['share']:.2%} of it",
                flush=True,
            )
    first = rows[0]
    print(
        json.dumps(
            {
                "name": "overhead",
                "ours": first["ours_us"],
                "peer": first["copy_us"],
                "ratio": first["ours_us"] / first["copy_us"],
                "unit": "us in send and threads against one copy, heat 100 x 100, one rank",
                "holds": all(holds(row) for row in rows),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()

"""No field touches a disk: bytes written by all processes of a run while the fields grow tenfold.

Two online runs of the same campaign (heat_numpy, same simulations and steps) on grids of n x n and
of ten times as many nodes. For every process that descends from the run, `write_bytes` of
/proc/PID/io is sampled until it ends; the kernel counts there what dirties pages of block devices,
not of tmpfs. The network has one hidden neuron, because the model itself is stored and grows with
the grid. holds: the difference stays below 1 MB, and nothing was swapped out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

LIMIT_BYTES = 1_000_000
SAMPLE_S = 0.02

CAMPAIGN = """
name = "no-disk"
[solver]
command = ["{{python}}", "-m", "penstock_solvers.heat_numpy", "--n", "{n}", "--steps", "{steps}"]
workers = 2
steps = {steps}
[design]
simulations = {simulations}
validation = 4
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [{n}, {n}]
[reservoir]
capacity = 1000
threshold = 100
draws_per_sample = 1.25
[training]
options = {{ hidden = [1] }}
batch_size = 10
[checkpoint]
every_s = 3600.0
"""


def run_once(folder: Path, n: int, simulations: int, steps: int) -> dict[str, Any]:
    """One run; what all of its processes wrote, and what was streamed."""
    folder.mkdir()
    campaign = folder / "campaign.toml"
    campaign.write_text(CAMPAIGN.format(n=n, simulations=simulations, steps=steps))
    swapped = pages_swapped_out()
    command = [sys.executable, "-m", "penstock.command", "run", str(campaign), "--plain"]
    with (folder / "output.txt").open("wb") as log:
        process = psutil.Popen(
            [*command, "--runs", str(folder / "runs")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        written = watch(process)
    if process.wait() != 0:
        sys.exit(f"The run failed:\n{(folder / 'output.txt').read_text()}")
    (summary,) = folder.glob("runs/*/*/summary.json")
    told = json.loads(summary.read_text())
    return {
        "n": n,
        "bytes": told["bytes"]["streamed"],
        "written": sum(written.values()),
        "processes": len(written),
        "swapped_pages": pages_swapped_out() - swapped,
        "seconds": told["seconds"],
    }


def watch(process: psutil.Popen) -> dict[tuple[int, float], int]:
    """(pid, birth) -> bytes written to block devices, of the process and all its descendants."""
    written: dict[tuple[int, float], int] = {}
    while process.poll() is None:
        for each in [process, *process.children(recursive=True)]:
            try:
                key = (each.pid, each.create_time())
                written[key] = each.io_counters().write_bytes
            except psutil.Error:
                continue
        time.sleep(SAMPLE_S)
    return written


def pages_swapped_out() -> int:
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("pswpout"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one pair of shorter runs")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    small, large = 32, 101
    pairs, simulations = (1, 30) if options.quick else (3, 100)
    rows = []
    with tempfile.TemporaryDirectory(prefix="no-disk-") as scratch:
        for pair in range(pairs):
            for n in (small, large):
                row = run_once(Path(scratch) / f"{pair}-{n}", n, simulations, steps=50)
                rows.append(row)
                if not options.json:
                    print(
                        f"{n:4} x {n:<4} {row['bytes'] / 1e6:8.1f} MB of fields streamed, "
                        f"{row['written'] / 1e6:6.2f} MB written to disk by {row['processes']} "
                        f"processes, {row['swapped_pages']} pages swapped out"
                    )
    grown = [b["written"] - a["written"] for a, b in zip(rows[::2], rows[1::2], strict=True)]
    fields = [b["bytes"] - a["bytes"] for a, b in zip(rows[::2], rows[1::2], strict=True)]
    ours, peer = sorted(grown)[pairs // 2], sorted(fields)[pairs // 2]
    result = {
        "name": "no_disk",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "bytes more on disk / bytes more of fields",
        "holds": abs(ours) < LIMIT_BYTES and not any(row["swapped_pages"] for row in rows),
        "rows": rows,
    }
    if not options.json:
        print(f"{peer / 1e6:.1f} MB more of fields, {ours / 1e6:+.2f} MB more on disk (median)")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""No field touches a disk: bytes written by all processes of a run while the fields grow tenfold.

Pairs of online runs of the same campaign, the second on a grid of ten times the nodes. The solver
(stamp) takes its time for each step, so that both last equally long: what the coordinator notes
about a run is a matter of seconds, not of fields. For every process that descends from the run,
`write_bytes` of /proc/PID/io is sampled until it ends; the kernel counts there what dirties pages
of block devices, not of tmpfs. What a run keeps on purpose (model, checkpoint, picture) grows with
the grid too; its size is shown and taken off. holds: the median difference stays below 1 MB, and
nothing was swapped out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
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
command = [
    "{{python}}", "-m", "penstock_solvers.stamp", "--n", "{n}", "--steps", "50", "--delay-ms", "10",
]
workers = 2
steps = 50
[design]
simulations = {simulations}
validation = 4
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.stamp]
shape = [{n}, {n}]
[reservoir]
capacity = 1000
threshold = 100
draws_per_sample = 1.0
[training]
options = {{ hidden = [1] }}
batch_size = 10
[checkpoint]
every_s = 3600.0
"""


def run_once(folder: Path, n: int, simulations: int) -> dict[str, Any]:
    """One run; what all of its processes wrote, and what was streamed."""
    folder.mkdir()
    campaign = folder / "campaign.toml"
    campaign.write_text(CAMPAIGN.format(n=n, simulations=simulations))
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
    kept = sum(
        path.stat().st_size
        for name in ("model/*", "checkpoints/**/*", "picture.png")
        for path in summary.parent.glob(name)
        if path.is_file()
    )
    return {
        "n": n,
        "kept": kept,
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
    pairs, simulations = (1, 20) if options.quick else (5, 40)
    rows, grown, fields = [], [], []
    with tempfile.TemporaryDirectory(prefix="no-disk-") as scratch:
        for pair in range(pairs):
            few, many = (run_once(Path(scratch) / f"{pair}-{n}", n, simulations) for n in (32, 101))
            rows += [few, many]
            on_purpose = many["kept"] - few["kept"]
            grown.append(many["written"] - few["written"] - on_purpose)
            fields.append(many["bytes"] - few["bytes"])
            if not options.json:
                show(few)
                show(many)
    ours, peer = int(statistics.median(grown)), int(statistics.median(fields))
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


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['n']:4} x {row['n']:<4} {row['bytes'] / 1e6:6.1f} MB of fields streamed, "
        f"{row['written'] / 1e6:5.2f} MB written to disk by {row['processes']} processes, of it "
        f"{row['kept'] / 1e6:.2f} MB model, checkpoint and picture; {row['swapped_pages']} pages "
        f"swapped out; {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()

"""What durable checkpoints cost: throughput with one every 30 s against none.

A campaign whose network has more than 100 million weights (the layers of SC'23 on a field of
640 x 640) trains on a stream; the pairs differ in checkpoint.every_s alone. A checkpoint has the
weights, the optimiser's two moments, schedules, random states and the ledgers, and nothing of the
reservoir; it is written beside training and is on the disk when it counts. ours and peer: draws per
second from the first batch to the last. holds: the median of the pairs' ratios is at least 0.97.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BAR = 0.97
NEVER_S = 1e6

CAMPAIGN = """
name = "checkpoint"
[solver]
command = ["{{python}}", "-m", "penstock_solvers.stamp", "--n", "{n}", "--steps", "20"]
workers = 1
steps = 20
[design]
simulations = {simulations}
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.stamp]
shape = [{n}, {n}]
[reservoir]
capacity = 200
threshold = 40
[training]
options = {{ hidden = [256, 256] }}
batch_size = 10
snapshot_batches = 50
[stop]
batches = {batches}
[checkpoint]
every_s = {every_s}
"""


def run_once(folder: Path, size: dict[str, float], every_s: float) -> dict[str, Any]:
    folder.mkdir()
    campaign = folder / "campaign.toml"
    campaign.write_text(CAMPAIGN.format(**size, every_s=every_s))
    command = [sys.executable, "-m", "penstock.command", "run", str(campaign), "--quiet"]
    done = subprocess.run(
        [*command, "--runs", str(folder / "runs")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The campaign failed:\n{done.stdout}{done.stderr}")
    (run,) = (folder / "runs").glob("*/*")
    summary = json.loads((run / "summary.json").read_text())
    newest = max((run / "checkpoints").iterdir(), key=lambda each: each.stat().st_mtime)
    return {
        "draws_per_s": summary["throughput"]["draws_per_s"],
        "checkpoint_bytes": sum(f.stat().st_size for f in newest.rglob("*") if f.is_file()),
        "weights": sum(f.stat().st_size for f in (run / "model").glob("*.safetensors")) // 4,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between checkpoints")
    parser.add_argument("--quick", action="store_true", help="a small network, one every 2 s")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    size: dict[str, float] = {"n": 640, "batches": 300, "simulations": 400}
    if options.quick:
        size = {"n": 64, "batches": 2000, "simulations": 1200}
        options.pairs, options.every = 2, 2.0
    rows = []
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        for pair in range(options.pairs):
            ours = run_once(Path(scratch) / f"{pair}-ours", size, options.every)
            peer = run_once(Path(scratch) / f"{pair}-peer", size, NEVER_S)
            rows.append({"ours": ours, "peer": peer})
            if not options.json:
                print(
                    f"{ours['weights'] / 1e6:.1f} million weights, a checkpoint of "
                    f"{ours['checkpoint_bytes'] / 1e6:.0f} MB every {options.every:g} s: "
                    f"{ours['draws_per_s']:.1f} draws/s, without {peer['draws_per_s']:.1f}",
                    flush=True,
                )
    ratio = statistics.median(r["ours"]["draws_per_s"] / r["peer"]["draws_per_s"] for r in rows)
    print(
        json.dumps(
            {
                "name": "checkpoint",
                "ours": statistics.median(r["ours"]["draws_per_s"] for r in rows),
                "peer": statistics.median(r["peer"]["draws_per_s"] for r in rows),
                "ratio": ratio,
                "unit": "draws/s",
                "holds": ratio >= BAR,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()

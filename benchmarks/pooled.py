"""Studies of the same comparison with different seeds, taken together.

    python benchmarks/pooled.py A/result.json B/result.json

The files are what online_vs_offline.py (or `penstock compare`) wrote; a seed that stands in two of
them is refused. For each pair of arms: the geometric mean of the paired ratios over all seeds, its
95 % interval, and each seed's ratio. rows: those of all files, each with the seed of its campaign.
holds: every tuned pair stays within its bar in the mean. There is nothing to be made --quick here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from online_vs_offline import holds

from penstock_server.compare.report import spread
from penstock_server.compare.statistics import paired, verdict

Rows = dict[str, dict[int, dict[str, Any]]]  # arm -> seed of the campaign -> row


def gather(results: list[dict[str, Any]]) -> Rows:
    """The rows of all studies; raises SystemExit for a seed that came twice."""
    rows: Rows = {}
    for result in results:
        for row in result["rows"]:
            found = rows.setdefault(row["arm"], {})
            seed = result["seed"] + row["seed"]
            if seed in found:
                sys.exit(f"Seed {seed} of the arm {row['arm']!r} stands in two of the files.")
            found[seed] = row
    return rows


def pool(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each pair of arms over all seeds that have both."""
    rows, pairs = gather(results), []
    known = {(p["ours"], p["peer"]): p["bar"] for result in results for p in result["pairs"]}
    for (ours, peer), bar in known.items():
        seeds = sorted(rows[ours].keys() & rows[peer].keys())
        errors = [[rows[arm][seed]["mse"] for seed in seeds] for arm in (ours, peer)]
        ratio = paired(*errors)
        pairs.append(
            {
                "ours": ours, "peer": peer, "bar": bar, "seeds": seeds,
                "mse_ratio": vars(ratio), "rmse_ratio": vars(ratio.root()),
                "mse_ratio_by_seed": [a / b for a, b in zip(*errors, strict=True)],
                "mse": [vars(paired(e, [1.0] * len(e))) for e in errors],
                "verdict": verdict(ratio, bar),
            }
        )  # fmt: skip
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="result.json of each study")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    for key in ("name", "batches", "metric", "reservoir"):
        told = [r[key] for r in results if key in r]  # the earliest results lack their reservoir
        if any(value != told[0] for value in told):
            sys.exit(f"These are results of different comparisons: {key} is {told}.")
    pairs = pool(results)
    for pair in pairs if not options.json else ():
        each = " ".join(f"{ratio:.3g}" for ratio in pair["mse_ratio_by_seed"])
        print(
            f"{pair['ours']} / {pair['peer']}, {len(pair['seeds'])} seeds: MSE ratio "
            f"{spread(pair['mse_ratio'])}, RMSE {spread(pair['rmse_ratio'])} ({each}); bar "
            f"{pair['bar']}: {pair['verdict']}"
        )
    first = pairs[0]
    print(
        json.dumps(
            {
                "name": f"pooled/{results[0]['name']}",
                "ours": first["mse"][0]["mean"],
                "peer": first["mse"][1]["mean"],
                "ratio": first["mse_ratio"]["mean"],
                "unit": "test MSE / field variance",
                "holds": holds(pairs),
                "pairs": pairs,
                "rows": [
                    {**row, "seed": seed}
                    for found in gather(results).values()
                    for seed, row in sorted(found.items())
                ],
            }
        )
    )


if __name__ == "__main__":
    main()

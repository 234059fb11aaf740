"""result.json of a comparison: every seed's figures, their means, ratios and verdicts.

`commands/compare` and the benchmarks call `gather` and `summarise`; the second is pure, so that
everything can be computed again from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from penstock_server.compare.arms import Arm
from penstock_server.compare.costs import Counts, costs
from penstock_server.compare.statistics import Spread, geometric, paired, quotient, verdict
from penstock_server.compare.study import Study

FORMAT = "penstock-comparison-1"
BAR = 0.32  # of MSE: a gain of 68 %
BAR_ALL = 1.10  # against everything stored: streaming costs at most 10 %
OVERALL = "all fields"
SHOWN = ("mse", "rmse", "nrmse", "p50", "p95", "max", "spread")

Row = dict[str, Any]


def gather(study: Study) -> dict[str, list[Row]]:
    """The rows of a finished study: "arms", "opponents" and "tuning"."""
    comparison = study.comparison
    design = comparison.campaign.design
    counts = Counts(design.simulations, design.validation, design.test)
    workers = comparison.campaign.solver.workers * comparison.campaign.solver.mpi_ranks
    arms, opponents = [], []
    for seed in range(comparison.seeds):
        first = study.first(seed)
        for arm in comparison.arms:
            run = study.record(arm, seed)
            setting = study.settings[arm.name]
            spent = costs(arm.simulations, run["summary"], first["summary"], counts, workers)
            errors = run["validation"]
            arms.append(
                {
                    "arm": arm.name,
                    "seed": seed,
                    "simulations": min(arm.simulations or design.simulations, first["complete"]),
                    "setting": str(setting),
                    "checkpoint": study.checkpoint(arm, seed),
                    "validation": errors[study.checkpoint(arm, seed)],
                    **_errors(study.test_figures(arm, seed)),
                    **spent.to_dict(),
                    "time_share": run["summary"].get("time_share"),
                    "samples": run["summary"].get("samples"),
                }
            )
        for n in study.sizes:
            for name, found in study.opponents(n, seed).items():
                told = {"opponent": name, "kind": found["kind"], "seed": seed, "simulations": n}
                opponents.append({**told, **_errors(found)})
    tuning = [
        {"arm": arm.name, "setting": str(setting), "validation": error}
        for arm in comparison.arms
        for setting, error in study.tried(arm)
    ]
    return {"arms": arms, "opponents": opponents, "tuning": tuning}


def summarise(
    rows: Mapping[str, Sequence[Row]], arms: Sequence[Arm], about: Mapping[str, Any], bar: float
) -> dict[str, Any]:
    """The whole result; `bar` is for the arms with less than all simulations."""
    found = {arm.name: [row for row in rows["arms"] if row["arm"] == arm.name] for arm in arms}
    total = max(row["simulations"] for row in rows["arms"])
    return {
        "format": FORMAT,
        **about,
        "metric": "mse: divided by the field's variance over the test set, mean of the fields",
        "arms": [_arm(arm, found[arm.name]) for arm in arms],
        "pairs": [
            _pair(ours, found[ours.name], peer, found[peer.name], bar, total)
            for ours, peer in pairs_of(arms)
        ],
        "opponents": [
            _opponent(key, [row for row in rows["opponents"] if _which(row) == key])
            for key in sorted({_which(row) for row in rows["opponents"]})
        ],
        "tuning": list(rows["tuning"]),
        "rows": [_without_curves(row) for row in rows["arms"]],
        "opponent_rows": [_without_curves(row) for row in rows["opponents"]],
    }


def pairs_of(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Each online arm with the offline arms whose setting came about in the same way."""
    return [
        (ours, peer)
        for ours in arms
        for peer in arms
        if ours.online and not peer.online and ours.fixed == peer.fixed
    ]


def interval_of(values: Sequence[float]) -> dict[str, Any] | None:
    """A `Spread` as JSON takes it; None where there is no geometric mean, as with a zero."""
    try:
        return asdict(geometric(values))
    except ValueError:
        return None


def _arm(arm: Arm, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "simulations": min(row["simulations"] for row in rows),
        "stored": not arm.online,
        "fixed": arm.fixed is not None,
        "setting": rows[0]["setting"],
        **_means(rows),
        **{
            key: math.fsum(row[key] for row in rows) / len(rows)
            for key in ("core_s", "wall_s", "stored_bytes")
        },
    }


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    """Geometric means over seeds: relative MSE, each field's errors, the curve over t."""
    names = rows[0]["per_field"]
    return {
        "mse": interval_of([row["mse"] for row in rows]),
        "nrmse": interval_of([row["nrmse"] for row in rows]),
        "per_field": {
            name: {key: interval_of([row["per_field"][name][key] for row in rows]) for key in SHOWN}
            for name in names
        },
        "over_t": {
            name: {
                "t": rows[0]["over_t"][name]["t"],
                "nrmse": [
                    spread["mean"] if (spread := interval_of(values)) else None
                    for values in zip(
                        *(row["over_t"][name]["nrmse"] for row in rows),
                        strict=False,  # simulations may differ in length
                    )
                ],
            }
            for name in names
        },
    }


def _pair(
    ours: Arm, our_rows: Sequence[Row], peer: Arm, rows: Sequence[Row], bar: float, total: int
) -> dict[str, Any]:
    everything = max(row["simulations"] for row in rows) >= total
    allowed = BAR_ALL if everything else bar

    def ratio(name: str) -> Spread | None:
        errors = [
            [row["mse"] if name == OVERALL else row["per_field"][name]["mse"] for row in side]
            for side in (our_rows, rows)
        ]
        try:
            return paired(*errors)
        except ValueError:  # a network that diverged, or one without any error
            return None

    overall = ratio(OVERALL)
    return {
        "ours": ours.name,
        "peer": peer.name,
        "seeds": len(rows),
        "mse_ratio": _json(overall),
        "rmse_ratio": _json(overall and overall.root()),
        "mse_ratio_by_seed": [
            quotient(a["mse"], b["mse"]) for a, b in zip(our_rows, rows, strict=True)
        ],
        "mse_ratio_by_field": {name: _json(ratio(name)) for name in rows[0]["per_field"]},
        "bar": allowed,
        "verdict": verdict(overall, allowed),
    }


def _json(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else asdict(spread)


def _which(row: Row) -> tuple[str, int]:
    return row["opponent"], row["simulations"]


def _opponent(key: tuple[str, int], rows: Sequence[Row]) -> dict[str, Any]:
    kinds = sorted({row["kind"] for row in rows})
    return {
        "opponent": key[0],
        "simulations": key[1],
        "kind": "; ".join(kinds),
        **_means(rows),
    }


def _errors(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Of `Evaluation.to_dict`: the relative MSE and nRMSE of all fields, each field's errors."""
    fields = evaluation["per_field"]
    return {
        "mse": evaluation["value"] ** 2,
        "nrmse": evaluation["value"],
        "test_simulations": evaluation["simulations"],
        "per_field": {name: {key: e[key] for key in SHOWN} for name, e in fields.items()},
        "over_t": {name: {"t": e["t"], "nrmse": e["nrmse_over_t"]} for name, e in fields.items()},
    }


def _without_curves(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "over_t"}

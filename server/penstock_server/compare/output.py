"""What a finished comparison leaves: result.json, comparison.md, comparison.png."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock_server.compare.report import markdown
from penstock_server.compare.result import BAR, gather, summarise
from penstock_server.compare.study import Study
from penstock_server.json_file import finite, write_json
from penstock_server.pictures.comparison import ArmErrors, Reference, draw_comparison

RESULT, TABLE, FIGURE = "result.json", "comparison.md", "comparison.png"


def write(study: Study, bar: float = BAR) -> dict[str, Any]:
    """Writes all three into the comparison's folder; gives the result."""
    comparison, folder = study.comparison, study.records.folder
    about = {
        "name": comparison.campaign.name,
        "seeds": comparison.seeds,
        "seed": comparison.campaign.seed,
        "batches": study.batches,
        "tuned": comparison.tune,
        "jobs": comparison.jobs,
        "reservoir": comparison.campaign.reservoir.model_dump(mode="json"),
    }
    result: dict[str, Any] = finite(summarise(gather(study), comparison.arms, about, bar))
    write_json(folder / RESULT, result)
    (folder / TABLE).write_text(markdown(result), encoding="utf-8")
    draw(result, folder / FIGURE)
    return result


def draw(result: Mapping[str, Any], path: Path) -> None:
    """The figure from result.json; several fields share it by their overall nRMSE, the curve over
    t is that of the first."""
    arms = []
    for arm in result["arms"]:
        spread = arm["nrmse"]
        if spread is None:
            continue
        curve = next(iter(arm["over_t"].values()))
        arms.append(
            ArmErrors(
                name=arm["arm"],
                simulations=arm["simulations"] if arm["stored"] else None,
                by_seed=[row["nrmse"] for row in result["rows"] if row["arm"] == arm["arm"]],
                mean=spread["mean"],
                interval=None if spread["low"] is None else (spread["low"], spread["high"]),
                t=curve["t"],
                over_t=curve["nrmse"],
                tuned=not arm["fixed"],
            )
        )
    most = max((found["simulations"] for found in result["opponents"]), default=0)
    lowest = min((min(arm.by_seed) for arm in arms), default=0.0)
    references = [
        Reference(f"{found['opponent']}, {most:,} simulations", found["nrmse"]["mean"])
        for found in result["opponents"]
        # An opponent that is exact, as the linear one on linear problems, would squeeze the rest.
        if found["simulations"] == most and found["nrmse"] and found["nrmse"]["mean"] > lowest / 10
    ]
    draw_comparison(path, arms, references, f"{result['name']}: online and offline training")

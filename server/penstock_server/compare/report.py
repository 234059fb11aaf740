"""The result of a comparison as tables: on the terminal and as comparison.md; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from penstock_server.figures import clock_time, figure, size

Result = Mapping[str, Any]
Rows = list[tuple[str, ...]]

ERRORS = ("", "test MSE", "RMSE", "nRMSE [95 %]", "p50 / p95 / max")
COSTS = ("", "simulations", "core-hours", "wall from nothing", "stored", "setting")
PAIRS = ("", "MSE ratio [95 %]", "RMSE ratio [95 %]", "by seed", "bar", "verdict")
TUNING = ("arm", "setting", "validation nRMSE")
NOTES = (
    "MSE and RMSE are in the field's unit, nRMSE is divided by the field's spread over the test "
    "set; p50, p95 and max are of the nRMSE over test simulations. Means over seeds are geometric; "
    "intervals are t intervals of logarithms. A ratio below 1 favours the online arm; with several "
    "fields it is that of the MSE divided by each field's variance.",
    "better: the interval's upper end is below 1. bar met: the mean is below the bar. Otherwise "
    "undecided.",
    "Core-hours and wall time are from nothing, test simulations left out: an offline arm first "
    "produces its own training and the validation simulations, the solvers' core-seconds spread "
    "over all workers without waiting. The online run of each seed also stored the data of the "
    "others, which is charged to it as time and not as bytes.",
)
JOBS = "Offline runs were {jobs} at a time: their wall times are longer than alone."
ONE_SEED = "One seed: there is no interval, so that no arm can be better."


def markdown(result: Result) -> str:
    """The whole of comparison.md."""
    parts = [f"# {result['name']}: online and offline training compared", about(result)]
    parts += [_markdown(PAIRS, pair_rows(result)), _markdown(ERRORS, error_rows(result))]
    parts += [_markdown(COSTS, cost_rows(result)), *notes(result)]
    if result["tuned"]:
        parts += ["## Tuning, on the first seed's validation simulations"]
        parts += [_markdown(TUNING, tuning_rows(result))]
    return "\n\n".join(parts) + "\n"


def tables(result: Result) -> list[Table]:
    """For the terminal."""
    return [
        _rich(ERRORS, error_rows(result), about(result)),
        _rich(COSTS, cost_rows(result)),
        _rich(PAIRS, pair_rows(result)),
    ]


def about(result: Result) -> str:
    """What was compared, in a sentence."""
    n, tests = result["seeds"], result["rows"][0]["test_simulations"]
    tuned = "tuned on validation simulations" if result["tuned"] else "not tuned"
    return (
        f"{n} seed{'s' if n > 1 else ''}, {result['batches']:,} batches in every arm, {tests} test "
        f"simulations, {tuned}."
    )


def notes(result: Result) -> list[str]:
    found = list(NOTES)
    if result["jobs"] > 1:
        found.append(JOBS.format(jobs=result["jobs"]))
    if result["seeds"] == 1:
        found.append(ONE_SEED)
    return found


def error_rows(result: Result) -> Rows:
    """A row an arm and an opponent; one for each field where there are several."""
    named = [(arm["arm"], arm) for arm in result["arms"]]
    named += [(opponent_name(found), found) for found in result["opponents"]]
    return [
        (
            name if len(found["per_field"]) == 1 else f"{name}: {field}",
            _mean(errors["mse"]),
            _mean(errors["rmse"]),
            spread(errors["nrmse"]),
            " / ".join(_mean(errors[key]) for key in ("p50", "p95", "max")),
        )
        for name, found in named
        for field, errors in found["per_field"].items()
    ]


def cost_rows(result: Result) -> Rows:
    return [
        (
            arm["arm"],
            str(arm["simulations"]),
            figure(arm["core_s"] / 3600),
            clock_time(arm["wall_s"]),
            size(arm["stored_bytes"]) if arm["stored"] else "nothing",
            arm["setting"],
        )
        for arm in result["arms"]
    ]


def opponent_name(found: Mapping[str, Any]) -> str:
    """best constant of 100: what it is, and how many simulations it was fitted on."""
    name = "best constant" if found["opponent"] == "constant" else "linear emulator"
    return f"{name} of {found['simulations']}"


def pair_rows(result: Result) -> Rows:
    return [
        (
            f"{pair['ours']} / {pair['peer']}",
            spread(pair["mse_ratio"]),
            spread(pair["rmse_ratio"]),
            " ".join(figure(ratio) for ratio in pair["mse_ratio_by_seed"]),
            f"{pair['bar']:g}",
            pair["verdict"],
        )
        for pair in result["pairs"]
    ]


def tuning_rows(result: Result) -> Rows:
    return [(row["arm"], row["setting"], figure(row["validation"])) for row in result["tuning"]]


def spread(value: Mapping[str, Any] | None) -> str:
    """0.31 [0.25, 0.38]; without an interval the mean alone."""
    if value is None:
        return "not defined"
    mean = figure(value["mean"])
    if value["low"] is None:
        return mean
    return f"{mean} [{figure(value['low'])}, {figure(value['high'])}]"


def _mean(value: Mapping[str, Any] | None) -> str:
    return "not defined" if value is None else figure(value["mean"])


def _rich(header: Sequence[str], rows: Rows, title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left")
    for at, name in enumerate(header):
        table.add_column(name, style="" if at else "bold", overflow="fold", no_wrap=at == 0)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(header: Sequence[str], rows: Rows) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

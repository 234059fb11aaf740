"""What the run cost: time, cores, bytes, and the solver as an opponent; for `writing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_server import figures
from penstock_server.figures import duration
from penstock_server.pictures.report_bars import Bar, draw_bars
from penstock_server.report.blocks import Block, Missing, Picture, Section, Table, Text
from penstock_server.report.files import at, entries, number, table
from penstock_server.report.numbers import measured, times
from penstock_server.report.reading import Run

# The phases end at these marks of summary.json.
PHASES = {
    "started": "starting up",
    "first_batch": "until the first batch",
    "produced": "production",
    "trained": "training",
    "validated": "last validation",
    "ended": "ending",
}
SHARES = {
    "compute": "computing",
    "wait_data": "waiting for data",
    "validate": "snapshots and validation",
    "other": "everything else",
}
WAITS = {
    "empty": "nothing new was there to draw",
    "limiter": "every sample was drawn as often as allowed",
    "threshold": "the reservoir held too few samples",
    "normalisation": "the constants of the normalisation were not known yet",
    "starved rank": "another rank had nothing to draw",
}
CORES = {"solvers": "solvers", "training": "training", "server": "everything else"}


def phases(run: Run) -> dict[str, float]:
    """Seconds of each phase, in the order in which they ended."""
    marks = table(run.summary, "seconds_by_phase")
    ends = [(number(marks, name), name) for name in marks]
    found, before = {}, 0.0
    for end, name in sorted((end, name) for end, name in ends if end is not None):
        found[PHASES.get(name, name)] = end - before
        before = end
    return found


def time_shares(run: Run) -> dict[str, float]:
    """Of the training process: shares of one."""
    shares = table(run.summary, "time_share")
    return {SHARES.get(name, name): number(shares, name) or 0.0 for name in shares}


def time_section(run: Run) -> Section:
    """Where wall time, training time and core-seconds went."""
    blocks: list[Block] = []
    seconds = number(run.summary, "seconds")
    wall = phases(run)
    if wall:
        parts = ", ".join(f"{name} {duration(s)}" for name, s in wall.items())
        whole = f", {duration(seconds)} in all" if seconds is not None else ""
        text = f"Wall time by phase{whole}: {parts}."
        blocks.append(Picture(draw_bars([Bar("the run", wall)], "s"), text, text))
    shares = time_shares(run)
    if any(shares.values()):
        parts = ", ".join(f"{name} {figures.percent(s)}" for name, s in shares.items())
        text = f"Time of the training process: {parts}."
        blocks.append(Picture(draw_bars([Bar("training", shares)], "%"), text, text))
    waits = table(run.summary, "waits_s")
    if waits:
        longest = sorted(waits, key=lambda name: -(number(waits, name) or 0.0))
        rows = [(WAITS.get(name, name), duration(number(waits, name) or 0.0)) for name in longest]
        blocks.append(Table("Why training waited", ("reason", "time"), rows))
    else:
        blocks.append(Text("Training waited for nothing."))
    cores = table(run.summary, "cpu_s")
    if cores:
        names = [*CORES, *(name for name in cores if name not in CORES and name != "all")]
        rows = [
            (CORES.get(name, name), core_time(number(cores, name)))
            for name in names
            if number(cores, name) is not None
        ]
        rows.append(("all", core_time(number(cores, "all"))))
        blocks.append(
            Table("Processor time", ("who", "core time"), rows, strong=frozenset({len(rows) - 1}))
        )
    else:
        blocks.append(Missing("summary.json has no core-seconds (cpu_s) of this run."))
    return Section("Where the time went", blocks)


def core_time(seconds: float | None) -> str:
    """Core-seconds, or core-hours when they are many."""
    if seconds is None:
        return "unknown"
    return f"{measured(seconds)} core-s" if seconds < 3600 else f"{measured(seconds / 3600)} core-h"


def opponents_section(run: Run) -> Section:
    """The solver itself, and the coarsest solver that is as good as the surrogate."""
    title = "The solver as an opponent"
    found = run.opponents
    if found is None:
        return Section(
            title,
            [
                Missing(
                    "What the solver costs, and which coarser solver is as good as the surrogate, "
                    f"is not known yet. To measure it: penstock opponents {run.folder}"
                )
            ],
        )
    solver, surrogate = table(found, "solver"), table(found, "surrogate")
    coarser, equal = entries(found, "coarser"), at(found, "equal")
    solver_s = number(solver, "seconds_per_simulation")
    surrogate_s = number(surrogate, "seconds_per_simulation")
    rows = [
        ("the solver", str(at(solver, "command") or ""), "", seconds_of(solver), "0"),
        ("the surrogate", "", "", seconds_of(surrogate), measured(number(surrogate, "nrmse"))),
    ]
    strong = {1}
    for i, entry in enumerate(coarser):
        is_equal = i == equal
        if is_equal:
            strong.add(len(rows))
        shape = " x ".join(str(n) for n in at(entry, "shape") or ())
        label = "coarser solver" + (", of equal error" if is_equal else "")
        rows.append(
            (
                label,
                str(at(entry, "command") or ""),
                shape,
                seconds_of(entry),
                measured(number(entry, "nrmse")),
            )
        )
    caption = "Cost of one simulation and error against the solver"
    header = ("who", "command", "shape", "a simulation takes", "nRMSE")
    return Section(
        title,
        [
            Table(caption, header, rows, n_text=3, strong=frozenset(strong)),
            Text(speed_sentence(surrogate_s, solver_s, coarser, equal)),
        ],
    )


def speed_sentence(
    surrogate_s: float | None, solver_s: float | None, coarser: list[Mapping[str, Any]], equal: Any
) -> str:
    """How much faster, against what: only a solver of equal error is a fair opponent."""
    if not surrogate_s:
        return "The surrogate's time is not known, so nothing can be said about speed."
    against = ""
    if solver_s:
        against = f" (against the solver as it was run: {compared(surrogate_s, solver_s)})"
    if isinstance(equal, int) and 0 <= equal < len(coarser):
        fair = number(coarser[equal], "seconds_per_simulation")
        if fair:
            return (
                "Against the coarsest solver whose error is no larger than its own the surrogate "
                f"is {compared(surrogate_s, fair)}{against}."
            )
    return (
        "None of the coarser solvers that were tried is as exact as the surrogate, so the fair "
        f"opponent is not known{against}."
    )


def compared(surrogate_s: float, other_s: float) -> str:
    ratio = other_s / surrogate_s
    return f"{times(ratio)} times faster" if ratio >= 1 else f"{times(1 / ratio)} times slower"


def seconds_of(entry: Mapping[str, Any]) -> str:
    seconds = number(entry, "seconds_per_simulation")
    return "unknown" if seconds is None else duration(seconds)


def data_section(run: Run) -> Section:
    """Samples and bytes, and what lies on the disk."""
    samples, summary = table(run.summary, "samples"), run.summary
    unique = number(samples, "trained_unique") or 0.0
    rows = [
        ("steps received", count(samples, "received")),
        ("of them repeated after a fault, and dropped", count(samples, "duplicates")),
        ("samples admitted for training", count(samples, "admitted")),
        ("of them trained on", count(samples, "trained_unique")),
        ("left untrained by the budget", count(samples, "untrained_by_budget")),
        ("draws", count(samples, "trained_total")),
        (
            "draws of a sample, on average",
            measured((number(samples, "trained_total") or 0.0) / unique) if unique else "none",
        ),
        ("draws per second", count(summary, "throughput", "draws_per_s")),
        ("new samples per second", count(summary, "throughput", "unique_per_s")),
        ("streamed", size_of(summary, "bytes", "streamed")),
        ("fields written to a disk", size_of(summary, "bytes", "written_fields")),
        ("security of the stream", str(at(summary, "security") or "unknown")),
    ]
    disk = [(name, figures.size(n)) for name, n in run.disk_bytes.items()]
    return Section(
        "Data",
        [
            Table("What was streamed and trained on", ("", "count"), rows),
            Table("What the run's folder holds", ("file or folder", "on the disk"), disk),
        ],
    )


def count(values: Mapping[str, Any], *keys: str) -> str:
    found = number(values, *keys)
    return "unknown" if found is None else figures.number(found)


def size_of(values: Mapping[str, Any], *keys: str) -> str:
    found = number(values, *keys)
    return "unknown" if found is None else figures.size(found) if found else "nothing"

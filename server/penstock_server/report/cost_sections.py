"""What the run cost: bytes, and the solver as an opponent; for `writing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_server import figures
from penstock_server.figures import duration
from penstock_server.report.blocks import Missing, Section, Table, Text
from penstock_server.report.files import at, entries, number, table
from penstock_server.report.numbers import measured, times
from penstock_server.report.reading import Run


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

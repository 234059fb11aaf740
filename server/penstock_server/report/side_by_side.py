"""Several runs on one page: a table with a column a run, and common curves; for `writing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from penstock_server import figures
from penstock_server.pictures.report_bars import Bar, draw_bars
from penstock_server.pictures.report_curves import Curve, Panel, draw_panels, draw_shares
from penstock_server.report.blocks import Block, Missing, Page, Picture, Section, Table, Text
from penstock_server.report.campaign_section import settings
from penstock_server.report.cost_sections import count, size_of
from penstock_server.report.error_sections import (
    AXES,
    NO_VALIDATION,
    NRMSE,
    staircase,
    validation_pairs,
)
from penstock_server.report.errors import ROLES, Judged, judged, unit_of
from penstock_server.report.files import at, number
from penstock_server.report.numbers import measured
from penstock_server.report.reading import Run
from penstock_server.report.time_section import core_time, phases, time_shares


def compare(runs: Sequence[Run]) -> Page:
    """The page of several runs, in the order in which they were given."""
    labels = labels_of(runs)
    sections = [
        errors_section(runs, labels),
        curves_section(runs, labels),
        settings_section(runs, labels),
        costs_section(runs, labels),
    ]
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return Page(
        title=f"{len(runs)} runs side by side",
        subtitle=names,
        verdict="",
        cards=(),
        sections=sections,
    )


def labels_of(runs: Sequence[Run]) -> list[str]:
    """The campaigns' names where they differ, with the run's id where they do not."""
    often = Counter(run.name for run in runs)
    labels = [run.name if often[run.name] == 1 else f"{run.name} {run.identity}" for run in runs]
    again = Counter(labels)
    return [
        label if again[label] == 1 else f"{label} ({i})" for i, label in enumerate(labels, start=1)
    ]


def errors_section(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    blocks: list[Block] = []
    for role in ROLES:
        found = [{one.who: one for one in judged(run, role)} for run in runs]
        if any(found):
            blocks.append(errors_table(runs, labels, role, found))
    if not blocks:
        return Section("Errors", [Missing(NO_VALIDATION)])
    if len({str(at(run.validation, "validation", "network", "simulations")) for run in runs}) > 1:
        blocks.append(
            Text(
                "The runs were judged on different numbers of simulations; their errors compare "
                "only if the simulations come from the same distribution."
            )
        )
    return Section("Errors", blocks)


def errors_table(
    runs: Sequence[Run], labels: Sequence[str], role: str, found: Sequence[dict[str, Judged]]
) -> Table:
    rows = [
        ("simulations", *(str(one["network"].simulations) if one else "none" for one in found)),
    ]
    strong = {1}
    for who, name in (
        ("network", "network"),
        ("best", "best network, if it is another"),
        ("constant", "best constant"),
        ("linear", "linear emulator"),
    ):
        if any(who in one for one in found):
            cells = (measured(one[who].value) if who in one else "" for one in found)
            rows.append((f"{NRMSE} of the {name}", *cells))
    fields = list(dict.fromkeys(f for one in found if one for f in one["network"].fields))
    for field in fields:
        units = {unit_of(run, field) for run in runs if unit_of(run, field)}
        unit = f" ({units.pop()})" if len(units) == 1 else ""
        for key, label in (
            ("nrmse", f"{field}: {NRMSE}"),
            ("rmse", f"{field}: RMSE{unit}"),
            ("mse", f"{field}: MSE{unit and unit[:-1] + '²)'}"),
            ("p50", f"{field}: p50 of simulations"),
            ("p95", f"{field}: p95 of simulations"),
            ("max", f"{field}: worst simulation"),
        ):
            cells = (
                measured(number(one["network"].fields, field, key)) if one else "" for one in found
            )
            rows.append((label, *cells))
    return Table(
        f"Errors on {role} simulations, of the network after the last batch unless said otherwise",
        ("", *labels),
        rows,
        strong=frozenset(strong),
    )


def curves_section(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    """Validation errors during training, errors over t, distributions."""
    blocks: list[Block] = []
    panels = []
    for key, label in AXES:
        curves = []
        for i, (run, name) in enumerate(zip(runs, labels, strict=True)):
            found = validation_pairs(run, key)
            if found:
                x, y = [a for a, _ in found], [b for _, b in found]
                curves.append(Curve(name, x, y, i, marked=True, dashed=i >= 8))
        panels.append(Panel(label, curves))
    if any(panel.curves for panel in panels):
        text = "Validation errors during training, against seconds, batches and simulations."
        blocks.append(Picture(draw_panels(panels, NRMSE), text, text))
    for role in ROLES:
        found_runs = [
            (i, name, judged(run, role))
            for i, (run, name) in enumerate(zip(runs, labels, strict=True))
        ]
        networks = [(i, name, found[0]) for i, name, found in found_runs if found]
        if networks:
            blocks += role_pictures(networks, role)
            break
    return Section("Curves", blocks or [Missing(NO_VALIDATION)])


def role_pictures(networks: Sequence[tuple[int, str, Judged]], role: str) -> list[Block]:
    blocks: list[Block] = []
    fields = list(dict.fromkeys(f for _, _, one in networks for f in one.fields))[:3]
    panels = []
    for field in fields:
        curves = []
        for i, name, one in networks:
            t, y = at(one.fields, field, "t") or [], at(one.fields, field, "nrmse_over_t") or []
            if len(t) > 1 and len(t) == len(y):
                y = [float("nan") if v is None else v for v in y]
                curves.append(Curve(name, t, y, i, dashed=i >= 8))
        if curves:
            panels.append(Panel("t", curves, title=field if len(fields) > 1 else ""))
    if panels:
        text = f"Errors of the networks over t, on {role} simulations."
        blocks.append(Picture(draw_panels(panels, NRMSE), text, text))
    curves = []
    for i, name, one in networks:
        values = [v for v in one.each() if v > 0]
        if values:
            x, y = staircase(values)
            curves.append(Curve(name, x, y, i, dashed=i >= 8))
    if curves:
        text = f"Share of the {role} simulations whose error is at most so large."
        blocks.append(Picture(draw_shares([Panel("", curves)], NRMSE), text, text))
    return blocks


def settings_section(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    """Settings that differ first and in bold."""
    rows = settings(runs)
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    differ = sum(len(set(row[1:])) > 1 for row in rows)
    caption = f"Settings; the {differ} in bold differ" if differ else "Settings, all alike"
    shown = Table(caption, ("setting", *labels), rows, len(labels) + 1, frozenset(range(differ)))
    return Section("Settings", [shown])


def costs_section(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    """Counts, bytes, cores; and bars of the time."""

    def row(label: str, cell: Callable[[Run], str]) -> tuple[str, ...]:
        return (label, *(cell(run) for run in runs))

    def losses(run: Run) -> str:
        keys = ("failed", "quarantined", "partial")
        return figures.number(sum(number(run.summary, "simulations", key) or 0.0 for key in keys))

    rows = [
        row("ended as", lambda run: str(at(run.summary, "state") or "unknown")),
        row("simulations completed", lambda run: count(run.summary, "simulations", "completed")),
        row("given up, quarantined or partial", losses),
        row("tried again", lambda run: count(run.summary, "simulations", "retried")),
        row("samples admitted", lambda run: count(run.summary, "samples", "admitted")),
        row("batches", lambda run: count(run.summary, "batches")),
        row("draws", lambda run: count(run.summary, "samples", "trained_total")),
        row("draws per second", lambda run: count(run.summary, "throughput", "draws_per_s")),
        row("streamed", lambda run: size_of(run.summary, "bytes", "streamed")),
        row("fields on a disk", lambda run: size_of(run.summary, "bytes", "written_fields")),
        row("wall time", lambda run: figures.duration(number(run.summary, "seconds") or 0.0)),
        row("processor time", lambda run: core_time(number(run.summary, "cpu_s", "all"))),
    ]
    blocks: list[Block] = [Table("What the runs did and cost", ("", *labels), rows)]
    walls = [Bar(name, phases(run)) for run, name in zip(runs, labels, strict=True)]
    if any(bar.parts for bar in walls):
        text = "Wall time of the runs by phase."
        blocks.append(Picture(draw_bars(walls, "s"), text, text))
    shares = [Bar(name, time_shares(run)) for run, name in zip(runs, labels, strict=True)]
    if any(value for bar in shares for value in bar.parts.values()):
        text = "Time of the training processes by what they did."
        blocks.append(Picture(draw_bars(shares, "%"), text, text))
    blocks.append(Text("Fields, inputs and faults are in the report of each run alone."))
    return Section("Costs", blocks)

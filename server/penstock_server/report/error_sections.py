"""Errors of the network and its opponents: figures, curves, distributions; for `writing`."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.pictures.report_curves import Curve, Level, Panel, draw_panels, draw_shares
from penstock_server.report.blocks import Block, Missing, Picture, Section, Table, Text
from penstock_server.report.errors import Judged, judged, roles, unit_of
from penstock_server.report.files import at, entries, number
from penstock_server.report.numbers import measured
from penstock_server.report.reading import Run

NAMES = {
    "network": "network",
    "best": "best network",
    "constant": "best constant",
    "linear": "linear emulator",
}
NRMSE = "nRMSE"
NO_VALIDATION = (
    "The run had no held-out simulations, so no error of the network is known. Set "
    "design.validation (and design.test) in the campaign file."
)
AXES = (("seconds", "seconds of training"), ("batches", "batches"), ("simulations", "simulations"))


def errors_section(run: Run) -> Section:
    """A table a role, and what each of its figures means."""
    found = roles(run)
    if not found:
        return Section("Errors", [Missing(NO_VALIDATION)])
    blocks: list[Block] = [
        Text(
            "nRMSE is the root mean square error divided by the spread (standard deviation) of "
            "the field over the held-out simulations: the best single number has about 1. p50, "
            "p95 and max are the median, the 95th percentile and the largest nRMSE of single "
            "simulations."
        )
    ]
    blocks += [errors_table(run, role) for role in found]
    if "test" not in found:
        blocks.append(
            Missing(
                "There are no errors on test simulations. Those on the validation simulations "
                "also chose the best network and the emulator's ridge, so they are a little too "
                "good. Set design.test for figures that nothing was chosen by."
            )
        )
    return Section("Errors", blocks)


def errors_table(run: Run, role: str) -> Table:
    emulators = judged(run, role)
    fields = list(emulators[0].fields)
    rows: list[tuple[str, ...]] = []
    strong = set()
    for field in fields:
        unit = unit_of(run, field)
        for one in emulators:
            if one.who == "network":
                strong.add(len(rows))
            cells = [measured(number(one.fields, field, key)) for key in ("nrmse", "rmse", "mse")]
            cells += [measured(number(one.fields, field, key)) for key in ("p50", "p95", "max")]
            rows.append((one.label, f"{field} ({unit})" if unit else field, *cells))
    if len(fields) > 1:
        for one in emulators:
            rows.append((one.label, "all fields", measured(one.value), "", "", "", "", ""))
    spreads = ", ".join(
        f"{measured(number(emulators[0].fields, name, 'spread'))} {unit_of(run, name)}".rstrip()
        + (f" ({name})" if len(fields) > 1 else "")
        for name in fields
    )
    return Table(
        f"Errors on {emulators[0].simulations} {role} simulations; spread {spreads}",
        ("emulator", "field (unit)", NRMSE, "RMSE", "MSE", "p50", "p95", "max"),
        rows,
        n_text=2,
        strong=frozenset(strong),
    )


def training_section(run: Run) -> Section:
    """Loss and validation error against time, batches and simulations."""
    if run.history is None:
        return Section(
            "Training", [Missing("history.csv is missing, so there are no curves of the training.")]
        )
    mse = at(run.campaign, "training", "loss") == "mse"
    loss_name = "training loss" if not mse else "root of the training loss"
    panels = []
    for key, label in AXES:
        curves = []
        losses = pairs(run, key, "loss")
        if losses:
            y = [v**0.5 if mse else v for _, v in losses]
            curves.append(Curve(loss_name, [x for x, _ in losses], y, "training"))
        errors = validation_pairs(run, key)
        if errors:
            x, y = [a for a, _ in errors], [b for _, b in errors]
            curves.append(Curve("validation error", x, y, "network", marked=True))
        levels = [] if "validation" not in roles(run) else opponents(judged(run, "validation"))
        panels.append(Panel(label, curves, levels))
    if not any(panel.curves for panel in panels):
        return Section("Training", [Missing("history.csv has no loss: nothing was trained.")])
    text = "Errors during training against seconds, batches and completed simulations."
    if mse:
        text += (
            " The loss is the mean squared error of standardised fields, so that its root "
            "compares with nRMSE."
        )
    picture = Picture(
        draw_panels(panels, NRMSE),
        "Three panels: training loss and validation error against seconds, batches and "
        "simulations, with the errors of the best constant and the linear emulator as lines.",
        text,
    )
    return Section("Training", [picture])


def opponents(emulators: Sequence[Judged]) -> list[Level]:
    return [
        Level(NAMES[one.who], one.value, one.who)
        for one in emulators
        if one.who in ("constant", "linear") and one.value is not None
    ]


def pairs(run: Run, x: str, y: str) -> list[tuple[float, float]]:
    """Of two columns of history.csv, where both are there and y is positive."""
    columns = run.history or {}
    found = zip(columns.get(x, ()), columns.get(y, ()), strict=False)
    return [(a, b) for a, b in found if a is not None and b is not None and b > 0]


def validation_pairs(run: Run, x: str) -> list[tuple[float, float]]:
    """Validation errors at where they were measured: exact in batches, else where the history has
    come to that batch."""
    columns = run.history or {}
    found = [(number(e, "batch"), number(e, "value")) for e in entries(run.validation, "history")]
    measured = [(b, v) for b, v in found if b is not None and v is not None and v > 0]
    if x == "batches":
        return measured
    along = [
        (b, position)
        for b, position in zip(columns.get("batches", ()), columns.get(x, ()), strict=False)
        if b is not None and position is not None
    ]
    placed = []
    for batch, value in measured:
        reached = [position for b, position in along if b >= batch]
        if reached or along:
            placed.append((reached[0] if reached else along[-1][1], value))
    return placed


def distribution_section(run: Run) -> Section:
    """Errors over t, and over the simulations."""
    title = "Errors over time and over simulations"
    found = roles(run)
    if not found:
        return Section(title, [Missing(NO_VALIDATION)])
    role = found[0]
    emulators = judged(run, role)
    blocks: list[Block] = []
    panels = over_t(emulators)
    if panels:
        blocks.append(
            Picture(
                draw_panels(panels, NRMSE),
                f"Error against t of {', '.join(NAMES[one.who] for one in emulators)}.",
                f"Error of each step over all {emulators[0].simulations} {role} simulations, "
                "divided by the same spread at all times.",
            )
        )
    else:
        blocks.append(Missing("Each simulation has a single step, so there is no curve over t."))
    n = emulators[0].simulations
    blocks.append(
        Picture(
            draw_shares([Panel("", shares(emulators))], NRMSE),
            "Share of simulations with at most a given error, for network and opponents.",
            f"Share of the {n} {role} simulations whose error is at most so large.",
        )
    )
    return Section(title, blocks)


def over_t(emulators: Sequence[Judged]) -> list[Panel]:
    """A panel a field, three at most."""
    panels = []
    names = list(emulators[0].fields)[:3]
    for name in names:
        curves = []
        for one in emulators:
            t, y = at(one.fields, name, "t") or [], at(one.fields, name, "nrmse_over_t") or []
            if len(t) > 1 and len(t) == len(y):
                own = one.who in ("network", "best")
                y = [float("nan") if v is None else v for v in y]
                curves.append(Curve(NAMES[one.who], t, y, one.who, own=own, dashed=not own))
        if curves:
            panels.append(Panel("t", curves, title=name if len(names) > 1 else ""))
    return panels


def shares(emulators: Sequence[Judged]) -> list[Curve]:
    curves = []
    for one in emulators:
        values = [v for v in one.each() if v > 0]
        if values:
            own = one.who in ("network", "best")
            x, y = staircase(values)
            curves.append(Curve(NAMES[one.who], x, y, one.who, own=own, dashed=not own))
    return curves


def staircase(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The empirical distribution, from 0 at the least value to 1 at the largest."""
    n = len(values)
    return [values[0], *values], [i / n for i in range(n + 1)]

"""Checks of what was trained on: the trainer's log of draws against the ledgers; pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock_server.audit.findings import Check, Finding, plural, spell
from penstock_server.audit.places import held, samples, spread, without
from penstock_server.audit.tables import Array, Tables
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.draw_log import checksums

NO_LOG = "there is no draws-RANK.bin, the trainer's own log ([audit] draws)"


def trained(tables: Tables) -> Check:
    """Everything that training shards admitted was drawn, or is named as left by the budget."""
    name, promise = "trained", "every admitted step was trained on, or is untrained_by_budget"
    if tables.draws is None:
        return Check(name, promise, "", unknown=NO_LOG)
    every, drawn = all_samples(tables), drawn_samples(tables)
    left = without(every, drawn)
    numbers = (
        f"{plural(len(every), 'sample')}, {len(every) - len(left):,} of them drawn, in "
        f"{plural(len(tables.all_draws), 'draw')}"
    )
    short = held(tables.training_admitted, tables.segment_steps)
    if n_short := int(short[short < tables.span].sum()):
        numbers += f"; {plural(n_short, 'step')} in segments shorter than a window"
    if tables.training.budget:
        return Check(name, promise, f"{numbers}; {len(left):,} untrained_by_budget")
    findings = [
        Finding(
            "never drawn",
            f"Simulation {simulation}: sample {spell(steps)} was admitted and never drawn.",
            simulation,
        )
        for simulation, steps in tables.places.by_simulation(left)
    ]
    return Check(name, promise, numbers, tuple(findings))


def untrained(tables: Tables) -> dict[int, list[int]]:
    """The samples (by first step) that a stop rule left undrawn, by simulation."""
    if tables.draws is None or not tables.training.budget:
        return {}
    left = without(all_samples(tables), drawn_samples(tables))
    return dict(tables.places.by_simulation(left))


def drawn_admitted(tables: Tables) -> Check:
    """Nothing reached the gradient that no shard had admitted."""
    name, promise = "drawn", "everything that was trained on had been admitted"
    if tables.draws is None:
        return Check(name, promise, "", unknown=NO_LOG)
    places, drawn = tables.places, drawn_samples(tables)
    foreign = without(drawn, all_samples(tables))
    if tables.lines is not None:  # admitted by a session that a resumption went back on
        foreign = without(foreign, _earlier(tables))
    elif tables.resumed:  # what came in then and never again stands in no ledger
        completed = np.array([each.id for each in tables.completed], np.uint64)
        foreign = foreign[np.isin(places.simulations(foreign), completed)]
    findings = [
        Finding(
            "never admitted",
            f"Simulation {simulation}: sample {spell(steps)} was trained on, and no shard has it.",
            simulation,
        )
        for simulation, steps in places.by_simulation(foreign)
    ]
    numbers = f"{plural(len(drawn), 'different sample')} drawn"
    return Check(name, promise, numbers, tuple(findings))


def logged(tables: Tables) -> Check:
    """The log is whole, and neither the ledgers nor the trainer's sum say otherwise."""
    name, promise = "logged", "the trainer's log agrees with its own count and with the ledgers"
    if tables.draws is None:
        return Check(name, promise, "", unknown=NO_LOG)
    logged_ = len(tables.all_draws)
    findings = [*_order(tables), *_ledgers(tables), *_inputs(tables)]
    if tables.training.done and logged_ != tables.training.draws:
        text = f"The log has {plural(logged_, 'draw')}, the trainer counted "
        findings.insert(0, Finding("log", f"{text}{tables.training.draws:,}."))
    each = ", ".join(f"rank {rank}: {len(rows):,}" for rank, rows in enumerate(tables.draws))
    numbers = f"{plural(logged_, 'draw')} ({each})"
    return Check(name, promise, numbers, tuple(findings))


def all_samples(tables: Tables) -> Array:
    """What could have been drawn: the windows of all that the training shards admitted."""
    rows = tables.training_admitted
    return tables.places.keys(*samples(rows, tables.segment_steps, tables.span))


def drawn_samples(tables: Tables) -> Array:
    """What was drawn, each once."""
    draws = tables.all_draws
    return np.unique(tables.places.keys(draws["simulation"], draws["step"]))


def _earlier(tables: Tables) -> Array:
    """The samples of all admissions that the training shards' journals tell of."""
    found = [np.empty(0, np.int64)]
    lines = tables.lines or {}
    for rows in (rows for shard, rows in lines.items() if shard != HELD_OUT):
        first = rows["segment"].astype(np.int64) * tables.segment_steps
        n = rows["n_steps"].astype(np.int64) - tables.span + 1
        found.append(tables.places.keys(*spread(rows["simulation"], first, n)))
    return np.concatenate(found)


def _order(tables: Tables) -> Iterator[Finding]:
    """Batches count up from 1; a record that does not fit in is damaged."""
    for rank, rows in enumerate(tables.draws or ()):
        numbers = rows["batch"].astype(np.int64)
        wrong = numbers == 0
        wrong[1:] |= numbers[1:] < numbers[:-1]
        if wrong.any():
            at = int(np.argmax(wrong))
            text = f"Record {at:,} of draws-{rank}.bin is of batch {numbers[at]:,}, out of order."
            yield Finding("log", text)


def _ledgers(tables: Tables) -> Iterator[Finding]:
    """What a shard holds for trained on stands in the log."""
    places, rows = tables.places, tables.training_admitted
    marked = rows[rows["drawn"] | rows["settled"]]
    claimed = places.keys(*samples(marked, tables.segment_steps, tables.span))
    for simulation, steps in places.by_simulation(without(claimed, drawn_samples(tables))):
        text = (
            f"Simulation {simulation}: a shard holds sample {spell(steps)} for trained on, and the "
            "trainer's log does not have it."
        )
        yield Finding("log", text, simulation)


def _inputs(tables: Tables) -> Iterator[Finding]:
    """Each sample came with the parameters that its simulation was given."""
    known = sorted(tables.simulations, key=lambda each: each.id)
    if not known or not known[0].parameters:
        return
    ids = np.array([each.id for each in known], np.uint64)
    sums = np.array(checksums(np.array([each.parameters for each in known])), np.uint32)
    draws = tables.all_draws
    at = np.clip(np.searchsorted(ids, draws["simulation"]), 0, len(ids) - 1)
    wrong = (ids[at] == draws["simulation"]) & (sums[at] != draws["inputs"])
    for simulation in np.unique(draws["simulation"][wrong]).tolist():
        text = f"Simulation {simulation} was trained on with parameters that are not its own."
        yield Finding("inputs", text, simulation)

"""Checks of what was simulated and admitted: named, lost, twice; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from penstock_server.audit.findings import Check, Finding, plural, spell
from penstock_server.audit.places import Places, repeated, samples, spread, without
from penstock_server.audit.tables import Array, Tables
from penstock_server.coordinator.records import COMPLETED, SETTLED_STATES

NO_JOURNAL = "there is no journal of admissions ([audit] checksums)"


def named(tables: Tables) -> Check:
    """Nothing that was asked for is passed over in silence."""
    states = Counter(each.state for each in tables.simulations)
    open_ = sum(n for state, n in states.items() if state not in SETTLED_STATES)
    numbers = f"{plural(tables.requested, 'simulation')} requested; " + ", ".join(
        f"{states[state]:,} {state}" for state in sorted(SETTLED_STATES)
    )
    if open_:
        rule = "not run, by the stop rule" if tables.training.budget else "unfinished"
        numbers += f", {open_:,} {rule}"
    return Check(
        "named",
        "every requested simulation is completed, partial or failed by name",
        numbers,
        (*_missing(tables), *_unsettled(tables)),
    )


def _missing(tables: Tables) -> Iterator[Finding]:
    """Ids count from 0 without a gap, so that a row that vanished is seen."""
    known = {each.id for each in tables.simulations}
    for number in range(max([tables.requested, *(i + 1 for i in known)])):
        if number not in known:
            yield Finding("missing", f"Simulation {number} is in no book.", number)
    first = sum(each.predecessor is None for each in tables.simulations)
    if first > tables.requested:
        text = f"{first:,} simulations are in the books, but {tables.requested:,} were requested."
        yield Finding("missing", text)


def _unsettled(tables: Tables) -> Iterator[Finding]:
    for each in tables.simulations:
        if each.state not in SETTLED_STATES and not tables.training.budget:
            text = f"Simulation {each.id} ({each.role}) is {each.state}: the run ended before it."
            yield Finding("unfinished", text, each.id)
        elif each.state in SETTLED_STATES - {COMPLETED} and not each.reason:
            text = f"Simulation {each.id} is {each.state}, and nothing says why."
            yield Finding("nameless", text, each.id)


def admitted(tables: Tables) -> Check:
    """The client's own count of each completed simulation against the shards' ledgers."""
    places, length = tables.places, tables.segment_steps
    everything = tables.all_admitted
    ends = _ends(everything)
    findings: list[Finding] = []
    said = {}  # simulation -> steps
    for each in tables.completed:
        of_shards = ends.get(each.id)
        if each.steps is not None and of_shards is not None and each.steps != of_shards:
            text = f"Simulation {each.id}: its client sent {each.steps:,} steps, its shards have "
            findings.append(Finding("counts", f"{text}{of_shards:,}.", each.id))
        steps = each.steps if each.steps is not None else of_shards
        if steps is None:
            text = f"Simulation {each.id} is completed, and no shard has any of its steps."
            findings.append(Finding("lost", text, each.id))
        else:
            said[each.id] = steps
    ids, n = np.array(list(said), np.uint64), np.array(list(said.values()), np.int64)
    wanted = places.keys(*spread(ids, np.zeros(len(ids), np.int64), n))
    there = places.keys(*samples(everything, length, 1))
    lost = without(wanted, there)
    for simulation, steps_ in places.by_simulation(lost):
        text = (
            f"Simulation {simulation} is completed with {said[simulation]:,} steps, and step "
            f"{spell(steps_)} was never admitted."
        )
        findings.append(Finding("lost", text, simulation))
    of_completed = there[np.isin(places.simulations(there), ids)]
    for simulation, steps_ in places.by_simulation(without(of_completed, wanted)):
        text = (
            f"Simulation {simulation} has {said[simulation]:,} steps, and step {spell(steps_)} "
            "was admitted."
        )
        findings.append(Finding("counts", text, simulation))
    counted = sum(each.steps is not None for each in tables.completed)
    uncounted = len(tables.completed) - counted
    numbers = (
        f"{plural(len(said), 'completed simulation')} of {plural(len(wanted), 'step')}; "
        f"{len(wanted) - len(lost):,} of them admitted"
    )
    if uncounted:
        numbers += f" ({uncounted:,} clients died before they could count: END says it)"
    return Check(
        "admitted", "every step of a completed simulation was admitted", numbers, tuple(findings)
    )


def _ends(rows: Array) -> dict[int, int]:
    """Steps of each simulation as the shards heard it with END."""
    known = rows[rows["n_steps"] >= 0]
    found, at = np.unique(known["simulation"], return_index=True)
    return dict(zip(found.tolist(), known["n_steps"][at].tolist(), strict=True))


def once(tables: Tables) -> Check:
    """No segment in two shards, and none twice in one life of a shard's memory.

    A resumed run's shards begin a new life with what their checkpoint holds, and number what they
    admit from there on: what was admitted after the checkpoint is admitted again, rightly.
    """
    places = tables.places
    findings: list[Finding] = []
    ledgers = {
        shard: places.keys(rows["simulation"], rows["segment"])
        for shard, rows in tables.admitted.items()
    }
    everywhere = np.concatenate(list(ledgers.values()))
    for simulation, segments in places.by_simulation(repeated(everywhere)):
        text = f"Segment {spell(segments)} of simulation {simulation} is in two shards' ledgers."
        findings.append(Finding("twice", text, simulation))
    n_lines = 0
    for shard, rows in (tables.lines or {}).items():
        n_lines += len(rows)
        keys = places.keys(rows["simulation"], rows["segment"])
        for part in np.split(np.arange(len(rows)), begins(rows["ordinal"])):
            for simulation, segments in places.by_simulation(repeated(keys[part])):
                text = f"Shard {shard} admitted segment {spell(segments)} of simulation "
                findings.append(Finding("twice", f"{text}{simulation} twice.", simulation))
        findings += _journal(tables, shard, rows, keys, ledgers[shard], places)
    numbers = f"{plural(len(everywhere), 'segment')} in {plural(len(ledgers), 'ledger')}"
    if tables.lines is not None:
        numbers += f", {plural(n_lines, 'line')} in the journals"
    return Check(
        "once",
        "no segment was admitted twice",
        numbers,
        tuple(findings),
        NO_JOURNAL if tables.lines is None else "",
    )


def begins(ordinals: Array) -> Array:
    """Where a new life of the shard's memory begins: its ordinals go back."""
    return np.flatnonzero(np.diff(ordinals.astype(np.int64)) <= 0) + 1


def _journal(
    tables: Tables, shard: str, rows: Array, keys: Array, ledger: Array, places: Places
) -> Iterator[Finding]:
    """The lines of the last life count on from what its checkpoint held, to what the ledger has."""
    start = int(begins(rows["ordinal"])[-1]) if len(begins(rows["ordinal"])) else 0
    ordinals, life = rows["ordinal"][start:].astype(np.int64), keys[start:]
    if np.any(np.diff(ordinals) != 1):
        at = int(np.flatnonzero(np.diff(ordinals) != 1)[0])
        text = f"The journal of shard {shard} has no line after admission {ordinals[at]:,}."
        yield Finding("journal", text)
    for simulation, segments in places.by_simulation(without(life, ledger)):
        text = (
            f"The journal of shard {shard} has segment {spell(segments)} of simulation "
            f"{simulation}, which its ledger does not know."
        )
        yield Finding("journal", text, simulation)
    before = int(ordinals[0]) - 1 if len(ordinals) else 0
    lacking = len(ledger) - before - len(life)
    # A receiver that is ended between ledger and journal leaves the line to the next one.
    if not 0 <= lacking <= (not tables.training.drained):
        text = (
            f"Shard {shard} has {len(ledger):,} segments in its ledger; its journal has "
            f"{before:,} from before and {len(life):,} lines."
        )
        yield Finding("twice" if lacking < 0 else "journal", text)

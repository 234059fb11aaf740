"""Checks of the roles: held-out simulations stay out of training, by id and by inputs; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from penstock_server.audit.findings import Check, Finding, plural
from penstock_server.audit.tables import Simulation, Tables
from penstock_server.audit.training import NO_LOG
from penstock_server.coordinator.plan import HELD_OUT
from penstock_server.draw_log import checksums

TRAIN = "train"


def held_out(tables: Tables) -> Check:
    """Neither the shards that feed training nor the trainer's log have a held-out simulation."""
    found = {each.id: each for each in tables.simulations if each.role != TRAIN}
    findings = [*_in_shards(tables, found), *_in_log(tables, found)]
    numbers = f"{plural(len(found), 'held-out simulation')}"
    if tables.draws is not None:
        numbers += f", none in {plural(len(tables.all_draws), 'draw')}" if not findings else ""
    return Check(
        "held out",
        "held-out simulations were never trained on",
        numbers,
        tuple(findings),
        NO_LOG if tables.draws is None and found else "",
    )


def disjoint(tables: Tables) -> Check:
    """No simulation in two roles, and no training simulation with the inputs of a held-out one."""
    findings = []
    roles: dict[int, set[str]] = defaultdict(set)
    owners: dict[tuple[float, ...], list[Simulation]] = defaultdict(list)
    for each in tables.simulations:
        roles[each.id].add(each.role)
        owners[each.parameters].append(each)
    for number, names in roles.items():
        if len(names) > 1:
            text = f"Simulation {number} has the roles {' and '.join(sorted(names))}."
            findings.append(Finding("roles", text, number))
    by_inputs = bool(tables.simulations and tables.simulations[0].parameters)
    for alike in owners.values() if by_inputs and not tables.input_fields else ():
        first = {each.role: each for each in reversed(alike)}
        for role in sorted(set(first) - {TRAIN}) if TRAIN in first else ():
            held, trained = first[role], first[TRAIN]
            text = (
                f"Simulation {held.id} ({role}) has the parameters of training simulation "
                f"{trained.id}."
            )
            findings.append(Finding("roles", text, held.id))
    return Check(
        "disjoint",
        "roles are disjoint, by id and by parameters",
        f"{plural(len(owners), 'set')} of parameters" if by_inputs else "no scalar parameters",
        tuple(findings),
        "" if by_inputs and not tables.input_fields else "inputs are known by id alone",
    )


def _in_shards(tables: Tables, found: dict[int, Simulation]) -> Iterator[Finding]:
    for shard, rows in tables.admitted.items():
        for number in np.unique(rows["simulation"]).tolist():
            if (number in found) != (shard == HELD_OUT):
                role = found[number].role if number in found else TRAIN
                text = f"Simulation {number} ({role}) was admitted by shard {shard}."
                yield Finding("held out", text, number)


def _in_log(tables: Tables, found: dict[int, Simulation]) -> Iterator[Finding]:
    if tables.draws is None:
        return
    draws = tables.all_draws
    drawn, n = np.unique(draws["simulation"], return_counts=True)
    for number, times in zip(drawn.tolist(), n.tolist(), strict=True):
        if number in found:
            text = f"Simulation {number} ({found[number].role}) was trained on, {times:,} times."
            yield Finding("held out", text, number)
    yield from _under_another_id(tables, found)


def _under_another_id(tables: Tables, found: dict[int, Simulation]) -> Iterator[Finding]:
    """A draw with the parameters of a held-out simulation, whatever its id says."""
    if tables.input_fields or not tables.simulations or not tables.simulations[0].parameters:
        return
    sums = checksums(np.array([each.parameters for each in tables.simulations]))
    pairs = list(zip(sums, tables.simulations, strict=True))
    own = {value for value, each in pairs if each.role == TRAIN}
    theirs = {value: each for value, each in pairs if each.id in found and value not in own}
    draws = tables.all_draws
    for value, each in theirs.items():
        for number in np.unique(draws["simulation"][draws["inputs"] == value]).tolist():
            if number != each.id:
                text = (
                    f"Simulation {number} was trained on with the parameters of simulation "
                    f"{each.id} ({each.role})."
                )
                yield Finding("held out", text, each.id)

"""Checks of contents: what was admitted, drawn and stored of a place has one checksum; pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from penstock_server.audit.findings import Check, Finding, plural, spell
from penstock_server.audit.places import Places
from penstock_server.audit.production import NO_JOURNAL, begins
from penstock_server.audit.tables import Array, Tables


def alike(tables: Tables) -> Check:
    """CRC-32 by shard, by rank and by the audit itself, wherever two of them have a place."""
    name, promise = "contents", "a place has one content: when admitted again, drawn and stored"
    if tables.lines is None:
        return Check(name, promise, "", unknown=NO_JOURNAL)
    places = tables.places
    lines = np.concatenate(list(tables.lines.values()))
    pairs = np.unique(_pairs(places, lines["simulation"], lines["segment"], lines["checksum"]))
    findings = [*_again(places, pairs)]
    compared = _comparable(tables)
    drawn = _pairs(
        places,
        compared["simulation"],
        compared["step"] // tables.segment_steps,
        compared["content"],
    )
    findings += _differ(places, drawn, pairs, "was trained on")
    findings += _torn(tables, places)
    stored = tables.stored
    numbers = f"{plural(len(lines), 'admission')}, {plural(len(drawn), 'draw')}"
    if stored is not None:
        newest = _pairs(places, *_newest(tables))
        held = _pairs(places, stored["simulation"], stored["segment"], stored["checksum"])
        findings += _differ(places, held, newest, "stands in data.h5")
        numbers += f", {plural(len(held), 'stored segment')}"
    return Check(name, promise, f"{numbers} compared", tuple(findings))


_PAIR = np.dtype([("place", "<i8"), ("checksum", "<u4")])


def _pairs(places: Places, simulation: Array, segment: Array, checksum: Array) -> Array:
    rows = np.empty(len(simulation), _PAIR)
    rows["place"], rows["checksum"] = places.keys(simulation, segment), checksum
    return rows


def _again(places: Places, pairs: Array) -> Iterator[Finding]:
    """Admitted again, in another life of the shard's memory, with something else."""
    found, n = np.unique(pairs["place"], return_counts=True)
    for simulation, segments in places.by_simulation(found[n > 1]):
        text = (
            f"Simulation {simulation}: segment {spell(segments)} was admitted again with another "
            "content; the solver does not reproduce itself to the bit."
        )
        yield Finding("contents", text, simulation)


def _differ(places: Places, seen: Array, known: Array, did: str) -> Iterator[Finding]:
    """Of places that are known at all: seen with a checksum that they never had."""
    seen = np.unique(seen)
    wrong = seen[np.isin(seen["place"], known["place"]) & ~np.isin(seen, known)]
    for simulation, segments in places.by_simulation(wrong["place"]):
        text = (
            f"Simulation {simulation}: segment {spell(segments)} {did} with another content than "
            "was admitted."
        )
        yield Finding("contents", text, simulation)


def _comparable(tables: Tables) -> Array:
    """The draws that are a whole segment each, with a checksum."""
    draws = tables.all_draws
    whole: Array = (draws["content"] != 0) & (tables.window == tables.segment_steps)
    return np.asarray(draws[whole])


def _torn(tables: Tables, places: Places) -> Iterator[Finding]:
    """One sample drawn with two contents, in a run whose shards had one life."""
    if tables.resumed or any(len(begins(r["ordinal"])) for r in (tables.lines or {}).values()):
        return
    draws = tables.all_draws
    draws = draws[draws["content"] != 0]
    pairs = np.unique(_pairs(places, draws["simulation"], draws["step"], draws["content"]))
    found, n = np.unique(pairs["place"], return_counts=True)
    for simulation, steps in places.by_simulation(found[n > 1]):
        text = f"Simulation {simulation}: sample {spell(steps)} was drawn with two contents."
        yield Finding("contents", text, simulation)


def _newest(tables: Tables) -> tuple[Array, Array, Array]:
    """Simulation, segment and checksum of the last admission of each place."""
    found = []
    for rows in (tables.lines or {}).values():
        order = np.lexsort((np.arange(len(rows)), rows["segment"], rows["simulation"]))
        ordered = rows[order]
        same = (ordered["simulation"][1:] == ordered["simulation"][:-1]) & (
            ordered["segment"][1:] == ordered["segment"][:-1]
        )
        found.append(ordered[np.append(~same, True)[: len(ordered)]])
    joined = np.concatenate(found)
    return joined["simulation"], joined["segment"], joined["checksum"]

"""A small run in which nothing went wrong, as the audit's tables, made by hand."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock_server.admission_journal import LINE
from penstock_server.audit.tables import STORED, Simulation, Tables, Training
from penstock_server.audit.verdict import Audit, audit
from penstock_server.draw_log import DRAW, checksums
from penstock_server.ledger import ADMITTED

Array = npt.NDArray[Any]
STEPS, BATCH = 6, 4
SHARDS = ("0", "1", "held-out")
SIMULATIONS = (
    Simulation(0, "validation", "completed", STEPS, "", (0.5, 0.1)),
    Simulation(1, "test", "completed", STEPS, "", (0.5, 0.2)),
    Simulation(2, "train", "completed", STEPS, "", (0.1, 0.1)),
    Simulation(3, "train", "completed", STEPS, "", (0.1, 0.2)),
    Simulation(4, "train", "failed", None, "It raised ArithmeticError.", (0.1, 0.3)),
    Simulation(5, "train", "partial", None, "It does not reproduce itself.", (0.1, 0.4)),
    Simulation(6, "train", "completed", STEPS, "", (0.1, 0.4), predecessor=5),
)


def content(simulation: int, step: int) -> int:
    """The checksum of what stands there."""
    return zlib.crc32(f"{simulation}/{step}".encode())


def clean(length: int = 1, window: int = 1, stride: int = 1) -> Tables:
    """length: steps of a segment. Simulation 4 failed with one segment, 5 with two."""
    segments = {**dict.fromkeys((0, 1, 2, 3, 6), -(-STEPS // length)), 4: 1, 5: 2}
    places: dict[str, list[tuple[int, int]]] = {shard: [] for shard in SHARDS}
    for simulation, n in segments.items():
        for segment in range(n):
            shard = "held-out" if simulation < 2 else SHARDS[segment % 2]
            places[shard].append((simulation, segment))
    parameters = np.array([each.parameters for each in SIMULATIONS])
    inputs = checksums(parameters)

    span = (window - 1) * stride + 1
    ended = {each.id: each.steps for each in SIMULATIONS}

    def ledger(own: list[tuple[int, int]], drawn: bool) -> Array:
        return np.array(
            [(sim, seg, drawn, drawn, -1 if ended[sim] is None else STEPS) for sim, seg in own],
            ADMITTED,
        )

    def held(sim: int, seg: int) -> int:
        return length if ended[sim] is None else min(length, STEPS - seg * length)

    def lines(own: list[tuple[int, int]]) -> Array:
        return np.array(
            [
                (i, sim, sim + 10, seg, held(sim, seg), content(sim, seg * length))
                for i, (sim, seg) in enumerate(own, start=1)
            ],
            LINE,
        )

    def draws(own: list[tuple[int, int]]) -> Array:
        firsts = [
            (sim, seg * length + i) for sim, seg in own for i in range(held(sim, seg) - span + 1)
        ]
        twice = firsts + firsts[:BATCH]
        return np.array(
            [
                (sim, 1 + i // BATCH, step, inputs[sim], content(sim, step))
                for i, (sim, step) in enumerate(twice)
            ],
            DRAW,
        )

    logs = (draws(places["0"]), draws(places["1"]))
    return Tables(
        segment_steps=length,
        window=window,
        stride=stride,
        requested=6,
        simulations=SIMULATIONS,
        training=Training(True, "drained", sum(map(len, logs))),
        admitted={shard: ledger(own, shard != "held-out") for shard, own in places.items()},
        lines={shard: lines(own) for shard, own in places.items()},
        draws=logs,
        stored=np.array(
            [
                (sim, seg, content(sim, seg * length))
                for sim, n in segments.items()
                for seg in range(n)
            ],
            STORED,
        ),
    )


def kinds(tables: Tables) -> dict[str, set[tuple[str, int | None]]]:
    """check -> (kind, simulation) of its findings, of the checks that are broken."""
    found: Audit = audit(tables)
    return {
        check.name: {(finding.kind, finding.simulation) for finding in check.findings}
        for check in found.checks
        if check.findings
    }


def with_simulation(tables: Tables, number: int, **changes: Any) -> Tables:
    each = [replace(s, **changes) if s.id == number else s for s in tables.simulations]
    return replace(tables, simulations=tuple(each))


def with_rows(tables: Tables, table: str, shard: str, rows: Array) -> Tables:
    """table: "admitted" or "lines"."""
    return replace(tables, **{table: {**getattr(tables, table), shard: rows}})


def with_draws(tables: Tables, rank: int, rows: Array) -> Tables:
    """The log of a rank, and a trainer that counted the same."""
    assert tables.draws is not None
    draws = tuple(rows if i == rank else each for i, each in enumerate(tables.draws))
    training = replace(tables.training, draws=sum(map(len, draws)))
    return replace(tables, draws=draws, training=training)

"""Campaigns under seeded faults: afterwards nothing is lost and nothing is there twice.

make test-chaos          ten campaigns with 20 faults each
make test                a short one of the first kind
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from network import Network
from siege import Recovery, Siege, plan
from whole import N, Run, Started, admissions, write_campaign

from penstock_solvers.stamp import expected

Report = list[dict[str, Any]]
STEPS, HELD_OUT = 20, 3
KINDS_OF_CAMPAIGNS = (
    {}, {"ranks": 2}, {"mpi_ranks": 2}, {"ranks": 2, "workers": 3}, {"mpi_ranks": 2, "ranks": 2},
)  # fmt: skip


def audit(run: Run, simulations: int) -> tuple[int, int]:
    """(segments lost, segments twice); a content that is not the solver's fails the test."""
    found = admissions(run.folder)
    places = [(simulation, segment) for simulation, segment, _, _ in found]
    for simulation, segment, _, checksum in found:
        content = expected(simulation, segment, N).astype("<f4")
        assert checksum == zlib.crc32(content.tobytes()), (simulation, segment)
    wanted = {(s, k) for s in range(simulations) for k in range(STEPS)}
    assert set(places) <= wanted
    return len(wanted - set(places)), len(places) - len(set(places))


def check(
    run: Run, name: str, simulations: int, recoveries: list[Recovery], report: Report
) -> None:
    """The figures of a run that was besieged, and that its contract was kept."""
    assert run.finish(300) == 0, run.output
    lost, twice = audit(run, simulations + HELD_OUT)
    worst = max(recoveries, key=lambda recovery: recovery.seconds)
    report.append({
        "campaign": name,
        "faults": sum(len(recovery.faults) for recovery in recoveries),
        "recovery_s": [recovery.seconds for recovery in recoveries],
        "worst": " and ".join(worst.victims),
        "lost": lost,
        "twice": twice,
    })  # fmt: skip
    assert (lost, twice) == (0, 0)
    summary = run.summary
    assert summary["simulations"]["completed"] == simulations + HELD_OUT
    assert summary["samples"]["trained_unique"] == simulations * STEPS


@pytest.mark.chaos
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(10))
def test_twenty_faults(
    tmp_path: Path, start: Started, namespace: Network, report: Report, seed: int
) -> None:
    rng = random.Random(seed)
    kind = KINDS_OF_CAMPAIGNS[seed % len(KINDS_OF_CAMPAIGNS)]
    campaign = write_campaign(tmp_path, "--delay-ms", "40", simulations=500, **kind)
    run = start(campaign, "--set", f"seed={seed}", prefix=namespace.prefix)
    siege = Siege(run, rng, namespace)
    siege.lay(plan(20, rng))
    check(run, f"seed {seed}", 500, siege.recoveries, report)


@pytest.mark.timeout(240)
def test_four_faults(tmp_path: Path, start: Started, report: Report) -> None:
    rng = random.Random(5)
    campaign = write_campaign(tmp_path, "--delay-ms", "20", simulations=100)
    run = start(campaign)
    siege = Siege(run, rng, Network())
    siege.lay([("mpi rank",), ("receiver", "rank"), ("coordinator",)])
    check(run, "short", 100, siege.recoveries, report)

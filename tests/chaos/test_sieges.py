"""Campaigns under seeded faults: afterwards nothing is lost and nothing is there twice.

make test-chaos          ten campaigns with 20 faults each, three that are ended and resumed
make test                a short one of the first kind
"""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faults import alive, end, title
from network import Network
from siege import Recovery, Siege, plan
from whole import N, Run, Started, admissions, check_audit, children_of, journals, write_campaign

from penstock_server.checkpoint import newest_intact
from penstock_server.ledger import settled_segments
from penstock_solvers.stamp import expected

Report = list[dict[str, Any]]
Place = tuple[int, int]  # simulation, segment
STEPS, HELD_OUT = 20, 3
KINDS_OF_CAMPAIGNS = (
    {}, {"ranks": 2}, {"mpi_ranks": 2}, {"ranks": 2, "workers": 3}, {"mpi_ranks": 2, "ranks": 2},
)  # fmt: skip


def audit(
    run: Run, simulations: int, settled: set[Place], before: Mapping[str, int] | None
) -> tuple[int, int]:
    """(segments lost, segments twice); a content that is not the solver's fails the test.

    settled: those with which a resumed run began; its journals tell of the others, after `before`.
    """
    found = admissions(run.folder, before)
    places = [*settled, *((simulation, segment) for simulation, segment, _, _ in found)]
    for simulation, segment, _, checksum in found:
        content = expected(simulation, segment, N).astype("<f4")
        assert checksum == zlib.crc32(content.tobytes()), (simulation, segment)
    wanted = {(s, k) for s in range(simulations) for k in range(STEPS)}
    assert set(places) <= wanted
    return len(wanted - set(places)), len(places) - len(set(places))


def check(
    run: Run,
    name: str,
    simulations: int,
    recoveries: list[Recovery],
    report: Report,
    settled: Iterable[Place] = (),
    before: Mapping[str, int] | None = None,
) -> None:
    """The figures of a run that was besieged, and that its contract was kept."""
    assert run.finish(300) == 0, run.output
    lost, twice = audit(run, simulations + HELD_OUT, set(settled), before)
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
    check_audit(run.folder)


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


def supervisor(run: Run) -> list[int]:
    return [run.process.pid]


def ray_head(run: Run) -> list[int]:
    return [pid for pid in children_of(run.process.pid) if "gcs_server" in title(pid)]


def node(run: Run) -> list[int]:
    """Everything at once, as when the power goes."""
    return [run.process.pid, *children_of(run.process.pid)]


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victims", [supervisor, ray_head, node])
def test_a_campaign_that_ends_is_resumed(
    tmp_path: Path, start: Started, report: Report, victims: Callable[[Run], list[int]]
) -> None:
    rng = random.Random(11)
    campaign = write_campaign(tmp_path, "--delay-ms", "20", simulations=150, ranks=2)
    run = start(campaign)
    siege = Siege(run, rng, Network())
    siege.lay([("worker",), ("receiver",)])
    run.wait_for(lambda: newest_intact(run.folder / "checkpoints") is not None)
    kill(run, victims)
    settled = settled_places(run.folder)
    assert settled
    before = journals(run.folder)
    killed = time.monotonic()
    again = start(campaign, "--resume", str(run.folder))
    again.wait_for(lambda: sum(journals(run.folder).values()) > sum(before.values()))
    seconds = time.monotonic() - killed
    name = victims.__name__.replace("_", " ")
    back = Recovery((name,), (f"{name}, resumed",), seconds)
    check(again, f"resumed after {name}", 150, [*siege.recoveries, back], report, settled, before)


def kill(run: Run, victims: Callable[[Run], list[int]]) -> None:
    """Ends them; returns when nothing of the run is left, which needs nobody's help.

    So do the agents of a Ray that lost its driver, but they take minutes; they have nothing of
    the run.
    """
    family = [run.process.pid, *children_of(run.process.pid)]
    family = [pid for pid in family if not re.match("ray::(Dashboard|RuntimeEnv)Agent", title(pid))]
    assert [pid for victim in victims(run) for pid in end(victim)], "Nobody to be killed."
    run.process.wait(60)
    deadline = time.monotonic() + 60
    while left := [pid for pid in family if alive(pid)]:
        assert time.monotonic() < deadline, [title(pid) for pid in left]
        time.sleep(0.1)


def settled_places(run: Path) -> set[Place]:
    """What the checkpoint has with which a resumed run will begin."""
    newest = newest_intact(run / "checkpoints")
    found = {} if newest is None else settled_segments(newest.ledgers)
    return {
        (simulation, segment)
        for simulation, ranges in found.items()
        for first, last in ranges
        for segment in range(first, last + 1)
    }


@pytest.mark.timeout(240)
def test_four_faults(tmp_path: Path, start: Started, report: Report) -> None:
    rng = random.Random(5)
    campaign = write_campaign(tmp_path, "--delay-ms", "20", simulations=100)
    run = start(campaign)
    siege = Siege(run, rng, Network())
    siege.lay([("mpi rank",), ("receiver", "rank"), ("coordinator",)])
    check(run, "short", 100, siege.recoveries, report)

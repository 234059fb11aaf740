"""Production stops, then half of the workers are gone: batches go on, or wait as they are told to.

Two campaigns (stamp, four workers that rest between steps) go through rounds of three phases: as
usual; all agents halted with what they started; half of them. That is what the server sees of hosts
that are gone. Halted ones go on afterwards. Training has a core for itself, all else the others.

Without a limiter nothing of this concerns the trainer. ours: batches per second in the worse of the
two phases, peer: in the usual one before it, medians of the rounds. With draws_per_sample = 2 no
sample may be drawn more than that: at each of the trainer's reports the draws lie in the band
around it, and while nothing comes the trainer waits and names the limiter. holds: both rates are at
least 95 % of the usual one, no report is out of the band (too few draws count only once what was
stored before training began has been drawn, see `outside`), and at least WAITED of the time without
production was waited for the limiter.

    python benchmarks/outage.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pinned

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "chaos"), str(TESTS / "system")]

from faults import agents  # noqa: E402
from whole import Run, children_of, worker_pids  # noqa: E402

from penstock_server.coordinator import Store  # noqa: E402
from penstock_server.coordinator.records import Entry  # noqa: E402

TOLERANCE = 0.05
WAITED = 0.8  # of the time without production, less the seconds that the band lasts
RATIO, BATCH, WORKERS, DELAY_MS = 2.0, 10, 4, 20
BAND, THRESHOLD = 200, 500  # samples
SETTLED_S = 5.0  # of a phase that are not looked at: credit and what is on its way
START_S = 120.0

CAMPAIGN = """
name = "outage"
[solver]
command = [
    "{{python}}", "-m", "penstock_solvers.stamp",
    "--n", "64", "--steps", "50", "--delay-ms", "{delay_ms}",
]
workers = {workers}
steps = 50
[design]
simulations = 100000
[design.parameters]
p = {{ low = 0, high = 1 }}
[fields.stamp]
shape = [64, 64]
[reservoir]
capacity = 4000
threshold = {threshold}
{limiter}
[training]
options = {{ hidden = [256, 256] }}
batch_size = {batch}
optimizer = "pinned:adam"
[liveness]
silence_s = 4.0
beat_s = 0.5
"""
LIMITER = f"draws_per_sample = {RATIO}\nband = {BAND}"


@dataclass(frozen=True)
class Phase:
    """A stretch of a run, in seconds of its trainer."""

    name: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Row:
    """One report of the trainer."""

    seconds: float
    batches: int
    draws: int
    admitted: int
    unseen: int
    limited_s: float  # waited for the limiter so far

    @classmethod
    def of(cls, body: dict[str, Any]) -> Row:
        waits: dict[str, float] = body["waits_s"]
        return cls(
            body["seconds"], body["batches"], body["draws"], body["admitted"],
            body["admitted"] - body["unique"], waits.get("limiter", 0.0),
        )  # fmt: skip


def phases(run: Run, rounds: int, phase_s: float) -> list[Phase]:
    """Lets the run through all of them."""
    found = []

    def stay(name: str) -> None:
        begin_s = now_s(run)
        time.sleep(phase_s)
        found.append(Phase(name, begin_s + SETTLED_S, now_s(run)))

    for _ in range(rounds):
        stay("usual")
        for name, every in (("none", 1), ("half", 2)):
            # Without its agent: that one would start a halted solver anew within seconds.
            gone = [p for _, agent in agents(run)[::every] for p in (agent, *children_of(agent))]
            tell(gone, signal.SIGSTOP)
            stay(name)
            tell(gone, signal.SIGCONT)
            run.wait_for(lambda: len(worker_pids(run)) >= WORKERS, 60.0)
    return found


def tell(pids: Iterable[int], what: signal.Signals) -> None:
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, what)


def now_s(run: Run) -> float:
    """The trainer's time at its newest report."""
    with next(run.runs.glob("*/*/history.csv")).open(encoding="utf-8") as file:
        return max(float(line.split(",")[0]) for line in file if line[0].isdecimal())


def go(folder: Path, limiter: str, rounds: int, phase_s: float) -> tuple[list[Phase], list[Row]]:
    """One campaign; its phases and all reports of its trainer."""
    folder.mkdir()
    campaign = folder / "campaign.toml"
    campaign.write_text(
        CAMPAIGN.format(
            delay_ms=DELAY_MS, workers=WORKERS, batch=BATCH, threshold=THRESHOLD, limiter=limiter
        )
    )
    run = Run(campaign)
    try:
        run.wait_for(lambda: run.batches() > 100, START_S)
        time.sleep(SETTLED_S)
        found = phases(run, rounds, phase_s)
    finally:
        run.stop()
    store = Store(run.folder / "coordinator.sqlite")
    try:
        bodies = [entry.body for entry in store.read(Entry) if entry.stream == "progress"]
    finally:
        store.close()
    return found, [Row.of(body) for body in bodies if "batches" in body]


def within(phase: Phase, rows: list[Row]) -> list[Row]:
    return [row for row in rows if phase.begin_s <= row.seconds <= phase.end_s]


def rate(rows: list[Row]) -> float:
    """Batches per second from the first to the last of these reports."""
    return (rows[-1].batches - rows[0].batches) / (rows[-1].seconds - rows[0].seconds)


def rates(found: list[Phase], rows: list[Row]) -> dict[str, list[float]]:
    """Of each round, by the name of the phase."""
    by_name: dict[str, list[float]] = {}
    for phase in found:
        by_name.setdefault(phase.name, []).append(rate(within(phase, rows)))
    return by_name


def outside(rows: list[Row]) -> list[Row]:
    """Reports whose draws are off the ratio by more than the band allows (see rounds.py).

    What was stored before training began is drawn once before anything is drawn again, and that
    alone leaves more repeats owed than the band; so too few draws count from then on.
    """
    return [
        row
        for row in rows
        if row.draws > RATIO * row.admitted + BAND
        or (
            row.draws >= RATIO * THRESHOLD
            and RATIO * (row.admitted - row.unseen) - row.draws > BAND + BATCH
        )
    ]


def waited(found: list[Phase], rows: list[Row]) -> float:
    """Share of the time without production that was waited for the limiter; the least of all."""
    shares = []
    for phase in found:
        if phase.name == "none":
            seen = within(phase, rows)
            passed = sum(b.seconds - a.seconds for a, b in pairwise(seen))
            shares.append((seen[-1].limited_s - seen[0].limited_s) / passed)
    return min(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phase", type=float, default=25.0, help="seconds of each phase")
    parser.add_argument("--quick", action="store_true", help="one round of 12 s each")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.phase = 1, 12.0

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    os.sched_setaffinity(0, pinned.apart())
    with tempfile.TemporaryDirectory(prefix="outage-") as scratch:
        say("Without a limiter ...")
        by_name = rates(*go(Path(scratch) / "free", "", options.rounds, options.phase))
        say("With one ...")
        found, rows = go(Path(scratch) / "limited", LIMITER, options.rounds, options.phase)
    medians = {name: statistics.median(values) for name, values in by_name.items()}
    relative = {
        name: statistics.median(a / b for a, b in zip(by_name[name], by_name["usual"]))
        for name in ("none", "half")
    }
    say(
        f"Without a limiter: {medians['usual']:.1f} batches a second; while nothing is produced "
        f"{relative['none']:.3f} of that, with half of the workers {relative['half']:.3f}."
    )
    limited, share, off = rates(found, rows), waited(found, rows), outside(rows)
    say(
        f"With draws_per_sample = {RATIO}: "
        + ", ".join(f"{name} {statistics.median(each):.1f}" for name, each in limited.items())
        + f" batches a second; {len(off)} of {len(rows)} reports out of the band; at least "
        f"{share:.0%} of the time without production was waited for the limiter."
    )
    strays = [asdict(row) for row in off]
    worse = min(relative, key=lambda name: relative[name])
    print(
        json.dumps(
            {
                "name": "outage",
                "ours": medians[worse],
                "peer": medians["usual"],
                "ratio": relative[worse],
                "unit": f"batches/s without a limiter ({worse})",
                "holds": relative[worse] >= 1 - TOLERANCE and not off and share >= WAITED,
                "rows": [
                    {"limiter": False, "rates": by_name},
                    {"limiter": True, "rates": limited, "outside": strays, "waited": share},
                ],
            }
        )
    )


if __name__ == "__main__":
    main()

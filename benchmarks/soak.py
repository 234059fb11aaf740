"""Half an hour under fault after fault: no process grows, nothing stays behind, nothing is lost.

One campaign (heat_numpy) is laid under the faults of tests/chaos, one every 20 to 30 s, drawn from
a seed: processes killed and halted and, where the network can be disturbed (root, iptables), cut
and lossy. Meanwhile memory, open files and threads of every process of the run are sampled, by
role; who is started again begins a new life. Then the run comes to its end, `penstock audit` has to
find nothing, and no process and no shared memory may be left.

What grows by right: coordinator, receivers and supervisor keep books of simulations, so what they
grow is taken off, up to BOOKS bytes a simulation. The coordinator also keeps the newest thousand
reports of the trainer, 0.8 MB, which takes it eight minutes.
ours: the worst slope of a role's memory beyond that, in % of its size an hour, where what is
smaller than SMALL counts as that; peer: the bar. holds: no role is above the bar, open files and
threads of no process above theirs, and all of the above.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from growth import Growth, Life, Watch, growth

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "chaos"), str(TESTS / "system")]

from faults import KINDS, NETWORKED, title  # noqa: E402
from network import Namespace, Network  # noqa: E402
from siege import Recovery, Siege, plan  # noqa: E402
from whole import Run, children_of  # noqa: E402

from penstock_server import run_folder  # noqa: E402

MEMORY_BAR = 10.0  # % an hour
COUNT_BAR = 10.0  # files or threads of a process, % an hour
SMALL = 50e6  # bytes: a megabyte an hour of a process of ten is no leak to speak of
BOOKS = {"coordinator": 4000, "supervisor": 2000, "receiver": 2000}  # bytes a simulation
HELD_OUT, STEPS, PAUSE_MS = 8, 50, 40
A_SIMULATION_S = 2.2  # of a worker
UNDER_FIRE = 0.7  # of what workers produce undisturbed
SPARE_S = 10.0  # of production that are left when the last strike comes, at the least

CAMPAIGN = """
name = "soak"
seed = {seed}
[solver]
command = [
    "{{python}}", "-m", "penstock_solvers.heat_numpy",
    "--n", "32", "--steps", "{steps}", "--pause", "{pause_ms}",
]
workers = {workers}
steps = {steps}
[design]
simulations = {simulations}
validation = {held_out}
[design.parameters]
T0 = {{ low = 100, high = 500 }}
T1 = {{ low = 100, high = 500 }}
T2 = {{ low = 100, high = 500 }}
T3 = {{ low = 100, high = 500 }}
T4 = {{ low = 100, high = 500 }}
[fields.temperature]
shape = [32, 32]
[reservoir]
capacity = 1000
threshold = 100
draws_per_sample = 2.0
[training]
options = {{ hidden = [64, 64] }}
ranks = {ranks}
batch_size = 10
[validation]
every_batches = 200
[checkpoint]
every_s = 10.0
[liveness]
silence_s = 4.0
beat_s = 0.5
[audit]
checksums = true
"""


class Soaked(Run):
    """The run that is struck."""

    solver = "penstock_solvers.heat_numpy"

    def roles(self) -> dict[int, str]:
        """Every process of it, with its part in it."""
        found = {self.process.pid: "supervisor"}
        agents = []
        for name, pid in self.pids().items():
            agents += [pid] if name[1:].isdecimal() else []
            found[pid] = "agent" if name[1:].isdecimal() else role(name)
        for agent in agents:
            for pid in children_of(agent):
                words = title(pid)
                found[pid] = "agent's keeper" if "penstock.agent" in words else "worker"
        for pid in children_of(self.process.pid) - found.keys():
            words = title(pid)
            known = ("gcs_server", "raylet")  # of Ray; its other processes are together
            found[pid] = next((f"Ray's {name}" for name in known if name in words), "Ray's others")
        return found

    def scratch(self) -> Path | None:
        """Its folder in memory."""
        made = next(iter(self.runs.glob("*/*/campaign.toml")), None)
        return None if made is None else run_folder.reopen(made.parent).scratch

    def in_memory(self) -> dict[str, list[Path]]:
        """What is in there, Ray's own files apart."""
        scratch = self.scratch()
        found = [] if scratch is None or not scratch.is_dir() else list(scratch.iterdir())
        return {
            "our files": [path for path in found if not path.name.startswith("ray-")],
            "Ray's files": [path for path in found if path.name.startswith("ray-")],
        }

    def completed(self) -> int:
        """Simulations so far, as history.csv has them."""
        path = next(iter(self.runs.glob("*/*/history.csv")), None)
        if path is None:
            return 0
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row["simulations"] for row in csv.DictReader(file) if row["simulations"]]
        return int(float(rows[-1])) if rows else 0


def role(name: str) -> str:
    """receiver-0 and receiver-1 are one role, and so are the ranks."""
    stem, _, number = name.rpartition("-")
    return stem if number.isdecimal() else name


@dataclass(frozen=True)
class Ended:
    """What was seen of a soaked run."""

    lives: list[Life]
    recoveries: list[Recovery]
    seconds: float
    simulations: int
    problems: list[str]
    disk_bytes: int


def soak(folder: Path, options: argparse.Namespace, network: Network, say: Any) -> Ended:
    simulations = max(20, int(options.minutes * 60 * UNDER_FIRE * options.workers / A_SIMULATION_S))
    campaign = folder / "soak.toml"
    campaign.write_text(
        CAMPAIGN.format(
            seed=options.seed, steps=STEPS, pause_ms=PAUSE_MS, workers=options.workers,
            simulations=simulations, held_out=HELD_OUT, ranks=options.ranks,
        )
    )  # fmt: skip
    began_s = time.monotonic()
    run = Soaked(campaign, prefix=network.prefix)
    watch = Watch(run.roles, run.in_memory, options.every)
    watch.start()
    rng = random.Random(options.seed)
    siege = Siege(run, rng, network, options.gap_s)
    wanted = simulations + HELD_OUT
    try:
        siege.lay(() if options.calm else strikes(run, options, rng, wanted, say))
        code = run.finish(600.0 + 60 * options.minutes)
    finally:
        run.stop()
        lives = watch.stop()
    seconds = time.monotonic() - began_s
    return Ended(
        lives,
        siege.recoveries,
        seconds,
        wanted,
        [*broken(run, code, simulations), *left_behind(run, watch)],
        sum(path.lstat().st_size for path in run.folder.rglob("*")),
    )


def strikes(
    run: Soaked, options: argparse.Namespace, rng: random.Random, wanted: int, say: Any
) -> Iterator[tuple[str, ...]]:
    """Until the time is over, or nearly all is simulated."""
    last = wanted - options.workers * (options.gap_s[1] + SPARE_S) / A_SIMULATION_S
    kinds = [kind for kind in KINDS if kind not in options.spared]
    until_s = time.monotonic() + 60 * options.minutes
    while True:
        for kinds_of_strike in plan(len(kinds), rng, kinds):
            if time.monotonic() > until_s or run.completed() > last:
                return
            yield kinds_of_strike
            say(f"{run.completed()} of {wanted} simulations; struck: {', '.join(kinds_of_strike)}")


def broken(run: Soaked, code: int, simulations: int) -> list[str]:
    """What of the contract was not kept."""
    if code:
        return [f"The run ended with exit code {code}: {run.output[-2000:]}"]
    found = []
    summary = run.summary
    completed, wanted = summary["simulations"]["completed"], simulations + HELD_OUT
    if completed != wanted:
        found.append(f"{completed} of {wanted} simulations were completed.")
    if summary["samples"]["trained_unique"] != simulations * STEPS:
        found.append(f"{summary['samples']['trained_unique']} samples were trained on.")
    command = [sys.executable, "-m", "penstock.command", "audit", str(run.folder)]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    if audit.returncode:
        found.append(f"The audit is not clean:\n{audit.stdout}{audit.stderr}")
    return found


def left_behind(run: Soaked, watch: Watch) -> list[str]:
    """Processes, which get a moment to end, and shared memory."""
    deadline = time.monotonic() + 10
    while watch.alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    found = [f"Process {life.pid} ({life.role}) is left." for life in watch.alive()]
    scratch = run.scratch()
    paths = watch.shared | ({scratch} if scratch is not None else set())
    return found + [f"{path} is left." for path in sorted(paths) if path.exists()]


@dataclass(frozen=True)
class Judged:
    """A role's slopes held against the bars; % an hour, None where nobody lived long enough."""

    growth: Growth
    memory: float | None
    books_per_h: float  # bytes that were taken off
    files: float | None
    threads: float | None

    @property
    def flat(self) -> bool:
        counts = [x for x in (self.files, self.threads) if x is not None]
        return (self.memory or 0.0) <= MEMORY_BAR and all(x <= COUNT_BAR for x in counts)


def judge(found: Growth, simulations_per_h: float) -> Judged:
    slope = found.memory_per_h
    books = min(BOOKS.get(found.role, 0) * simulations_per_h, max(0.0, slope or 0.0))

    def percent(per_h: float | None, size: float) -> float | None:
        return None if per_h is None or not size else 100 * per_h / size

    process = found.threads > 0  # else files, whose number is shown and not judged
    return Judged(
        found,
        percent(None if slope is None else slope - books, max(found.memory, SMALL)),
        books,
        percent(found.files_per_h, found.files) if process else None,
        percent(found.threads_per_h, found.threads),
    )


def show(judged: list[Judged], ended: Ended) -> None:
    print(
        f"{'role':18} {'lives':>5} {'min':>5} {'MB':>7} {'resident':>8} {'kB/h':>7} {'books':>7} "
        f"{'%/h':>7} {'files':>6} {'/h':>6} {'threads':>7} {'/h':>6}"
    )
    for each in judged:
        g = each.growth
        print(
            f"{g.role:18} {g.lives:5} {g.watched_s / 60:5.1f} {g.memory / 1e6:7.1f} "
            f"{g.resident / 1e6:8.1f} {number(g.memory_per_h, 1e-3):>7} "
            f"{each.books_per_h / 1e3:7.0f} {number(each.memory):>7} {g.files:6.0f} "
            f"{number(g.files_per_h):>6} {g.threads:7.0f} {number(g.threads_per_h):>6}"
        )
    faults = sum(len(recovery.faults) for recovery in ended.recoveries)
    print(
        f"{faults} faults in {ended.seconds / 60:.1f} minutes, {ended.simulations} simulations, "
        f"{ended.disk_bytes / ended.simulations / 1e3:.1f} kB of the run folder for each."
    )
    for problem in ended.problems:
        print(problem)


def number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="of the faults and the campaign")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two samples")
    parser.add_argument("--warm-up", type=float, default=60.0, help="seconds of a life not judged")
    parser.add_argument("--calm", action="store_true", help="no faults: how the same run grows")
    parser.add_argument("--no-network", action="store_true", help="leave the network alone")
    parser.add_argument("--quick", action="store_true", help="90 s: slopes say nothing yet")
    parser.add_argument("--json", action="store_true", help="only the line of JSON at the end")
    options = parser.parse_args()
    options.gap_s, options.spared = (10.0, 20.0), set(NETWORKED)
    if options.quick:
        options.minutes, options.ranks, options.every, options.warm_up = 1.5, 1, 1.0, 10.0
        options.gap_s, options.spared = (5.0, 10.0), {"halt", *NETWORKED}

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    network = Network()
    missing = Namespace.missing()
    if not (options.quick or options.no_network or missing):
        network, options.spared = Namespace(), set()
    elif missing:
        say(f"The network is left alone: {missing}.")
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            ended = soak(Path(folder), options, network, say)
    finally:
        network.close()
    report(ended, options)


def report(ended: Ended, options: argparse.Namespace) -> None:
    roles = dict.fromkeys(life.role for life in ended.lives)
    per_h = 3600 * ended.simulations / ended.seconds
    judged = [
        judge(found, per_h)
        for name in roles
        if (
            found := growth(
                name, [life for life in ended.lives if life.role == name], options.warm_up
            )
        )
    ]
    if not options.json:
        show(judged, ended)
    slopes = [(each.memory, each.growth.role) for each in judged if each.memory is not None]
    worst, whose = max(slopes, default=(float("nan"), "nobody"))
    contract = not ended.problems
    print(
        json.dumps(
            {
                "name": "soak",
                "ours": worst,
                "peer": MEMORY_BAR,
                "ratio": worst / MEMORY_BAR,
                "unit": f"% of its memory an hour ({whose})",
                # At first everybody still warms up: then only the contract is judged.
                "holds": contract and (options.quick or all(each.flat for each in judged)),
                "rows": [
                    {
                        "faults": [asdict(recovery) for recovery in ended.recoveries],
                        "seconds": ended.seconds,
                        "simulations": ended.simulations,
                        "problems": ended.problems,
                        "slopes_judged": not options.quick,
                    },
                    *(
                        {**asdict(each.growth), "books_per_h": each.books_per_h, "flat": each.flat}
                        for each in judged
                    ),
                ],
            }
        )
    )


if __name__ == "__main__":
    main()

"""What a user could change so that training and production fit each other: one or two sentences.

`attribution` calls it at the end of a run. Pure rules on what was measured while both ran side by
side; every number in a sentence is one of these, or follows from them by the arithmetic beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock_server.figures import figure, percent

LEAST_S = 10.0  # side by side, before anything can be said
WAITED = 0.05  # share of the trainer's time from which on waiting is worth a word
HELD = 0.10  # the same of the workers'


@dataclass(frozen=True)
class Setup:
    """Of the campaign and of this machine, as far as advice depends on it."""

    mode: str = "online"
    workers: int = 1  # planned
    cores: int = 1
    policy: str = "reservoir"
    draws_per_sample: float | None = None

    @property
    def draws_wanted(self) -> float | None:
        """Draws that training makes of a sample; None where it makes as many as it has time for."""
        return self.draws_per_sample if self.policy == "reservoir" else 1.0


@dataclass(frozen=True)
class Measured:
    """While training and production ran side by side; all in seconds or samples of all ranks."""

    seconds: float = 0.0
    waits_s: Mapping[str, float] = field(default_factory=dict)  # by cause
    compute_s: float = 0.0  # of rank 0
    draws: float = 0.0
    admitted: float = 0.0
    workers_s: Mapping[str, float] = field(default_factory=dict)  # by activity, of all together
    told_s: Mapping[str, float] = field(default_factory=dict)  # of clients that measure
    cpu_s: Mapping[str, float] = field(default_factory=dict)  # core-seconds: "solvers", "all", ..
    receivers_busy: float | None = None  # share of the busiest one's time

    @property
    def waited_s(self) -> float:
        return sum(self.waits_s.values())

    def workers(self, planned: int) -> int:
        """How many there were on average."""
        total = sum(self.workers_s.values())
        return max(1, round(total / self.seconds)) if total and self.seconds else planned

    @property
    def cores_used(self) -> float:
        return self.cpu_s.get("all", 0.0) / self.seconds

    def held(self) -> tuple[float, bool] | None:
        """The workers' share of time without credit, and whether clients measured it as waiting."""
        told = self.told_s.get("seconds", 0.0)
        if told:
            return self.told_s.get("credit", 0.0) / told, True
        held = self.workers_s.get("room", 0.0) + self.workers_s.get("limiter", 0.0)
        at_work = held + self.workers_s.get("computing", 0.0)
        return (held / at_work, False) if at_work else None


def produced_share(measured: Measured, setup: Setup) -> float | None:
    """What the workers produce, as a share of what training could use if it never waited.

    admitted / seconds against draws / draws_wanted / (seconds - waited). None where training uses
    as much as there is, or has drawn nothing.
    """
    busy_s = measured.seconds - measured.waited_s
    wanted = setup.draws_wanted
    if wanted is None or busy_s <= 0 or measured.draws <= 0:
        return None
    usable_per_s = measured.draws / wanted / busy_s
    return measured.admitted / measured.seconds / usable_per_s


def workers_wanted(workers: int, share: float) -> int:
    """So many produce what training can use, if `workers` produce `share` of it, below 1."""
    return math.ceil(workers / share - 1e-9)


def workers_that_fit(n: int, measured: Measured, setup: Setup) -> int | None:
    """How many have cores here, by what each of the n takes now and what all leave free.

    None where nothing is known of it: their processes are not of this machine.
    """
    each = measured.cpu_s.get("solvers", 0.0) / measured.seconds / n
    if each <= 0:
        return None
    return n + max(0, round((setup.cores - measured.cores_used) / each))


def advise(measured: Measured, setup: Setup) -> str:
    """One or two sentences; empty for a run without a stream."""
    if setup.mode != "online":
        return ""
    if measured.seconds <= 0:
        return "No advice: training and production never ran side by side."
    if measured.seconds < LEAST_S:
        return (
            "No advice: training and production ran side by side for only "
            f"{figure(measured.seconds)} s; below {LEAST_S:.0f} s that says little."
        )
    cause = max(measured.waits_s, key=lambda name: measured.waits_s[name], default="")
    if cause and measured.waits_s[cause] >= WAITED * measured.seconds:
        share = percent(measured.waits_s[cause] / measured.seconds)
        if cause == "network":
            return _network(measured, share)
        if cause == "reservoir":
            return (
                f"Training waited {share} of the time while the workers had no room to send: "
                "the reservoir is too small. Raise reservoir.capacity."
            )
        return _solver(measured, setup, share)
    held = measured.held()
    if held is not None and held[0] >= HELD:
        return _fewer(measured, setup, *held)
    waited = percent(measured.waited_s / measured.seconds)
    workers = f", the workers were held for {percent(held[0])} of theirs" if held else ""
    return f"Nothing to advise: training waited {waited} of its time{workers}."


def _solver(measured: Measured, setup: Setup, waited: str) -> str:
    n = measured.workers(setup.workers)
    who, produce = (f"{n} workers", "produce") if n > 1 else ("1 worker", "produces")
    share = produced_share(measured, setup)
    opening = f"Training waited {waited} of the time"
    if share is None or measured.admitted <= 0:
        return f"{opening} for new samples of {who}; how many more it could use cannot be said."
    if share >= 1:
        return (
            f"{opening} for new samples, though {who} {produce} all that it can use on average: "
            "they come unevenly."
        )
    wanted, fit = workers_wanted(n, share), workers_that_fit(n, measured, setup)
    opening += f", because {who} {produce} {_part(share)} of what it can use"
    if fit is None or wanted <= fit:
        return f"{opening}; {wanted} would do."
    if fit > n:
        text = f"{opening}; {wanted} would do, the {setup.cores} cores here have room for {fit}."
    else:
        text = (
            f"{opening}; {wanted} would do, but {figure(measured.cores_used)} of the {setup.cores} "
            "cores here are in use already."
        )
    return text + _draw_more(setup)


def _network(measured: Measured, waited: str) -> str:
    busy = measured.receivers_busy
    how = f"; the busiest receiver was busy {percent(busy)} of the time" if busy is not None else ""
    return (
        f"Training waited {waited} of the time for samples on their way{how}. Send less of the "
        "fields (every, crop, stride, float32), or train on more ranks, each with a receiver."
    )


def _fewer(measured: Measured, setup: Setup, held: float, waiting: bool) -> str:
    n = measured.workers(setup.workers)
    who, were = (f"The {n} workers", "were") if n > 1 else ("The worker", "was")
    did = f"{who} waited for credit" if waiting else f"{who} {were} out of credit"
    computed = percent(measured.compute_s / measured.seconds)
    opening = (
        f"{did} for {percent(held)} of the time, because training, which computed for {computed} "
        "of it, is slower"
    )
    enough = max(1, math.ceil(n * (1 - held) - 1e-9))
    fewer = ""
    if waiting and enough < n:
        fewer = f": {enough} would do"
    elif not waiting and n > 1:
        fewer = ": fewer would do"
    what = "Another rank or a larger batch"
    if (setup.draws_wanted or 0.0) > 1:
        what = "Another rank, a larger batch or a lower draws_per_sample"
    return f"{opening}{fewer}. {what} would use more of what they send."


def _draw_more(setup: Setup) -> str:
    if setup.policy != "reservoir":
        return ' With reservoir.policy = "reservoir" samples are drawn again meanwhile.'
    return " Or raise reservoir.draws_per_sample."


def _part(share: float) -> str:
    return percent(share) if share >= 0.005 else "less than 1 %"

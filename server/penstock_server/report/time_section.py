"""Where wall time, the processes' time and core-seconds went; for `writing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock_server import figures
from penstock_server.figures import duration, percent
from penstock_server.pictures.report_bars import Bar, draw_bars
from penstock_server.report.blocks import Block, Missing, Picture, Section, Table, Text
from penstock_server.report.files import entries, number, table
from penstock_server.report.numbers import measured
from penstock_server.report.reading import Run

# The phases end at these marks of summary.json.
PHASES = {
    "started": "starting up",
    "first_batch": "until the first batch",
    "produced": "production",
    "trained": "training",
    "validated": "last validation",
    "ended": "ending",
}
SHARES = {
    "compute": "computing",
    "wait_data": "waiting for data",
    "validate": "snapshots and validation",
    "other": "everything else",
}
WAITS = {
    "empty": "nothing new was there to draw",
    "limiter": "every sample was drawn as often as allowed",
    "threshold": "the reservoir held too few samples",
    "normalisation": "the constants of the normalisation were not known yet",
    "starved rank": "another rank had nothing to draw",
}
CAUSES = {
    "solver": "waiting for the solvers",
    "network": "waiting for the network",
    "reservoir": "waiting for room in the reservoir",
    "start": "waiting for the first samples",
}
ACTIVITIES = {  # of a rank; waiting stands between the second and the third
    "compute": "computing",
    "gather": "gathering batches",
    "agree": "waiting for the other ranks",
    "snapshot": "snapshots and validation",
    "validate": "snapshots and validation",
}
ELSE = "everything else"
WORKERS = {
    "computing": "computing",
    "room": "out of credit: no room in the reservoir",
    "limiter": "out of credit: training is behind",
    "idle": "without a simulation",
    "starting": "starting",
    "ending": "ending",
}
MOST_BARS = 8
LEAST = 0.005  # share of time that is drawn
CORES = {"solvers": "solvers", "training": "training", "server": "everything else"}


def phases(run: Run) -> dict[str, float]:
    """Seconds of each phase, in the order in which they ended."""
    marks = table(run.summary, "seconds_by_phase")
    ends = [(number(marks, name), name) for name in marks]
    found, before = {}, 0.0
    for end, name in sorted((end, name) for end, name in ends if end is not None):
        found[PHASES.get(name, name)] = end - before
        before = end
    return found


def time_shares(run: Run) -> dict[str, float]:
    """Of the training process: shares of one."""
    shares = table(run.summary, "time_share")
    return {SHARES.get(name, name): number(shares, name) or 0.0 for name in shares}


def time_section(run: Run) -> Section:
    """Where wall time, the processes' time and core-seconds went, and what could be changed."""
    blocks: list[Block] = []
    advice = run.summary.get("advice")
    if advice:
        blocks.append(Text(str(advice)))
    seconds = number(run.summary, "seconds")
    wall = phases(run)
    if wall:
        parts = ", ".join(f"{name} {duration(s)}" for name, s in wall.items())
        whole = f", {duration(seconds)} in all" if seconds is not None else ""
        text = f"Wall time by phase{whole}: {parts}."
        blocks.append(Picture(draw_bars([Bar("the run", wall)], "s"), text, text))
    blocks += training_blocks(run)
    waits = table(run.summary, "waits_s")
    if waits:
        longest = sorted(waits, key=lambda name: -(number(waits, name) or 0.0))
        rows = [(WAITS.get(name, name), duration(number(waits, name) or 0.0)) for name in longest]
        blocks.append(Table("Why training waited", ("reason", "time"), rows))
    else:
        blocks.append(Text("Training waited for nothing."))
    blocks += production_blocks(run)
    cores = table(run.summary, "cpu_s")
    if cores:
        names = [*CORES, *(name for name in cores if name not in CORES and name != "all")]
        rows = [
            (CORES.get(name, name), core_time(number(cores, name)))
            for name in names
            if number(cores, name) is not None
        ]
        rows.append(("all", core_time(number(cores, "all"))))
        blocks.append(
            Table("Processor time", ("who", "core time"), rows, strong=frozenset({len(rows) - 1}))
        )
    else:
        blocks.append(Missing("summary.json has no core-seconds (cpu_s) of this run."))
    return Section("Where the time went", blocks)


def training_blocks(run: Run) -> list[Block]:
    """The ranks' time by activity, and what they waited for; by four groups in older runs."""
    ranks, causes = entries(run.summary, "attribution", "ranks_s"), _causes(run)
    if not ranks:
        shares = time_shares(run)
        if not any(shares.values()):
            return []
        return [_bars([Bar("training", shares)], "Time of the training process")]
    bars = [Bar(f"rank {i}", rank_shares(each, causes)) for i, each in enumerate(ranks)]
    if len(bars) > MOST_BARS:
        sums = {name: sum(bar.parts.get(name, 0.0) for bar in bars) for name in _names(bars)}
        mean = {name: share / len(bars) for name, share in sums.items()}
        bars = [Bar(f"mean of {len(bars)} ranks", mean)]
    found: list[Block] = [_bars(bars, "Time of the training processes")]
    total = sum(causes.values())
    if total:
        whole = sum(number(ranks[0], name) or 0.0 for name in ranks[0])
        rows = [
            (CAUSES.get(name, name), duration(s), percent(s / whole))
            for name, s in sorted(causes.items(), key=lambda item: -item[1])
            if s >= LEAST * whole
        ]
        found.append(Table("What training waited for", ("", "time", "of its time"), rows))
    return found


def rank_shares(rank: Mapping[str, Any], causes: Mapping[str, float]) -> dict[str, float]:
    """Shares of one of a rank's time. All ranks wait in the same rounds, so for the same causes."""
    seconds = {name: number(rank, name) or 0.0 for name in rank}
    total, waited = sum(seconds.values()) or 1.0, sum(causes.values())
    waiting = seconds.pop("wait", 0.0) if waited else 0.0
    order = list(dict.fromkeys(ACTIVITIES.values()))
    sums = dict.fromkeys([*order[:2], *CAUSES.values(), *order[2:], ELSE], 0.0)
    for name, s in seconds.items():
        sums[ACTIVITIES.get(name, ELSE)] += s / total
    for name, s in causes.items():
        sums[CAUSES.get(name, ELSE)] += waiting * s / waited / total
    return sums


def production_blocks(run: Run) -> list[Block]:
    """What workers and receivers did, and how production and training fitted each other."""
    found: list[Block] = []
    workers = table(run.summary, "attribution", "workers_s")
    seconds = {words: number(workers, name) or 0.0 for name, words in WORKERS.items()}
    total = sum(seconds.values())
    if total:
        shares = {words: s / total for words, s in seconds.items()}
        found.append(_bars([Bar("workers", shares)], "Time of all workers together"))
    receivers = table(run.summary, "attribution", "receivers_s")
    rows = []
    for shard in receivers:
        busy, idle = (number(receivers, shard, name) or 0.0 for name in ("busy", "idle"))
        if busy + idle:
            rows.append((f"shard {shard}", duration(busy), percent(busy / (busy + idle))))
    if rows:
        found.append(Table("Receivers", ("", "busy", "of its time"), rows))
    beside = table(run.summary, "attribution", "side_by_side")
    if beside_s := number(beside, "seconds"):
        found.append(Text(fit(beside, beside_s)))
    return found


def fit(beside: Mapping[str, Any], seconds: float) -> str:
    """Of the time while training and production ran side by side, in a sentence."""
    admitted, draws = (figures.number(number(beside, n) or 0.0) for n in ("admitted", "draws"))
    waits = table(beside, "waits_s")
    waited = sum(number(waits, name) or 0.0 for name in waits)
    sentence = (
        f"Training and production ran side by side for {duration(seconds)}: {admitted} samples "
        f"were admitted and {draws} drawn, and training waited {percent(waited / seconds)} of it"
    )
    produced = number(beside, "produced")
    if produced is None:
        return sentence + "."
    return f"{sentence}. Production was {percent(produced)} of what training could have used."


def _causes(run: Run) -> dict[str, float]:
    waits = table(run.summary, "attribution", "waits_s")
    return {name: number(waits, name) or 0.0 for name in waits}


def _bars(bars: Sequence[Bar], title: str) -> Picture:
    """Shares of one; what is next to nothing in every bar goes to "everything else"."""
    shown = [n for n in _names(bars) if any(b.parts.get(n, 0.0) >= LEAST for b in bars)]
    bars = [Bar(bar.label, _kept(bar.parts, shown)) for bar in bars]
    each = (
        (f"{bar.label}: " if len(bars) > 1 else "")
        + ", ".join(f"{name} {percent(share)}" for name, share in bar.parts.items())
        for bar in bars
    )
    text = f"{title}: {'; '.join(each)}."
    return Picture(draw_bars(bars, "%"), text, text)


def _kept(parts: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    kept = {name: parts.get(name, 0.0) for name in names}
    if ELSE in kept:
        kept[ELSE] += sum(share for name, share in parts.items() if name not in kept)
    return kept


def _names(bars: Sequence[Bar]) -> list[str]:
    return list(dict.fromkeys(name for bar in bars for name in bar.parts))


def core_time(seconds: float | None) -> str:
    """Core-seconds, or core-hours when they are many."""
    if seconds is None:
        return "unknown"
    return f"{measured(seconds)} core-s" if seconds < 3600 else f"{measured(seconds / 3600)} core-h"

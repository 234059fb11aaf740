"""A running campaign on about 20 lines, or in one; pure, called by the display.

From the coordinator's status, and what was remembered of earlier ones, to what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock_server.attribution import split
from penstock_server.coordinator.records import SETTLED_STATES
from penstock_server.figures import bar, clock_time, figure, number, percent, rate, size, sparkline
from penstock_server.recent import Recent, Status, point_of, total, training_shards
from penstock_server.time_spent import causes

SHARES = (  # of the trainer's time: key, words, sign, style
    ("compute", "computing", "█", "green"),
    ("wait_data", "waiting for data", "░", "red"),
    ("validate", "validating", "▓", "cyan"),
    ("other", "other", "▒", "bright_black"),
)
CAUSES = {  # of waiting: key, words
    "solver": "the solvers",
    "network": "the network",
    "reservoir": "room in the reservoir",
    "start": "the first samples",
}
AT_WORK = {  # of the workers' time: key, words
    "computing": "computing",
    "room": "out of credit, no room",
    "limiter": "out of credit, training is behind",
    "starting": "starting",
}
SHOWN = 0.005  # the least share of time that gets words


def panel(status: Status, recent: Recent) -> RenderableType:
    """Everything about a running campaign, about 20 lines."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(justify="right", style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("simulations", _simulations(status))
    rows.add_row("samples", _speeds(status, recent))
    rows.add_row("reservoir", _reservoir(status))
    rows.add_row("time", _time_share(status))
    rows.add_row("loss", _loss(status, recent))
    rows.add_row("error", _error(status, recent))
    rows.add_row("workers", _workers(status))
    if recent.messages:
        rows.add_row("messages", Text("\n".join(recent.messages)))
    left = time_left(status, recent)
    title = f"{status.get('name', '')}: {doing(status)}, {clock_time(status['seconds'])}"
    subtitle = f"about {clock_time(left)} left" if left is not None else None
    return Panel(rows, title=title, subtitle=subtitle, title_align="left", subtitle_align="right")


def doing(status: Status) -> str:
    """In words what the campaign is at."""
    trainer = (status.get("trainer") or {}).get("state", "waiting")
    state = status.get("state", "running")
    if state == "stopping":
        return "stopping"
    if trainer == "done" or state == "trained":
        return "trained, validating"
    words = {"waiting": "collecting the first samples", "draining": "drawing what is left"}
    return words.get(trainer, "training")


def time_left(status: Status, recent: Recent) -> float | None:
    """Seconds until production and training are through at the present speed, or None."""
    counts, waits = status["simulations"], []
    missing = int(counts["requested"]) - sum(int(counts.get(name, 0)) for name in SETTLED_STATES)
    if missing > 0:
        # Single simulations come in bursts, so the whole campaign so far, not the last seconds.
        settled = int(counts["requested"]) - missing
        if not settled or not status["seconds"]:
            return None
        waits.append(missing * status["seconds"] / settled)
    if recent.planned_batches is not None:
        batches = int((status.get("trainer") or {}).get("batches") or 0)
        speed = recent.per_second("batches")
        if batches < recent.planned_batches:
            if not speed:
                return None
            waits.append((recent.planned_batches - batches) / speed)
    return max(waits) if waits else None


def _simulations(status: Status) -> RenderableType:
    counts = {name: int(n) for name, n in status["simulations"].items()}
    wrong = counts.get("failed", 0) + counts.get("quarantined", 0)
    parts = [
        (counts["completed"] + counts.get("partial", 0), "█", "green"),
        (wrong, "x", "red"),
        (counts["running"], "▒", "yellow"),
    ]
    words = f"{counts['completed']} of {counts['requested']} done, {counts['running']} running, "
    words += f"{counts['queued']} queued"
    text = Text.assemble(bar(parts, counts["requested"]), f" {words}")
    if counts.get("retried"):
        text.append(f", {counts['retried']} tried again", "yellow")
    if wrong:
        text.append(f", {wrong} failed", "bold red")
    return text


def _speeds(status: Status, recent: Recent) -> Text:
    point = point_of(status)
    received, drawn = recent.per_second("received"), recent.per_second("drawn")
    return Text(
        f"{number(point.received)} received ({rate(received)}), "
        f"{number(point.drawn)} drawn ({rate(drawn)}), {size(total(status, 'bytes'))} streamed"
    )


def _reservoir(status: Status) -> Text:
    stored, unseen = total(status, "stored", False), total(status, "unseen", False)
    capacity = total(status, "capacity", False)
    seen = max(0, stored - unseen)
    parts = [(seen, "█", "blue"), (unseen, "▒", "cyan")]
    text = bar(parts, capacity)
    text.append(f" {number(seen)} seen, {number(unseen)} unseen, ")
    text.append(f"{number(max(0, capacity - stored))} free")
    if any(shard.get("blocked") for shard in training_shards(status)):
        text.append("\nfull: the solvers wait", "yellow")
    return text


def _time_share(status: Status) -> Text:
    shares = (status.get("trainer") or {}).get("time_share") or {}
    if not shares:
        return Text("the training has not started", "dim")
    parts = [(float(shares.get(key, 0.0)), sign, style) for key, _, sign, style in SHARES]
    text = bar(parts, sum(value for value, _, _ in parts))
    text.append("\n")
    for (_, words, sign, style), (value, _, _) in zip(SHARES, parts, strict=True):
        text.append(sign, style).append(f" {words} {percent(value)}  ")
    spent = status["trainer"].get("time_s") or {}
    waited = split(causes(spent), status.get("told_s") or {})
    told = shown_shares(waited, CAUSES, sum(spent.values()))
    return text.append(f"\nwaited for {told}") if told else text


def shown_shares(seconds: Mapping[str, float], words: Mapping[str, str], total_s: float) -> str:
    """Shares of a time in words, the largest first; what is next to nothing is left out."""
    found = sorted(words.keys() & seconds.keys(), key=lambda name: -seconds[name])
    return ", ".join(
        f"{words[name]} {percent(seconds[name] / total_s)}"
        for name in found
        if total_s > 0 and seconds[name] >= SHOWN * total_s
    )


def _loss(status: Status, recent: Recent) -> Text:
    trainer = status.get("trainer") or {}
    if trainer.get("loss") is None:
        return Text("none yet", "dim")
    text = Text(sparkline([value for _, value in recent.losses]), "magenta")
    batches = number(int(trainer.get("batches") or 0))
    planned = f" of {number(recent.planned_batches)}" if recent.planned_batches else ""
    return text.append(f" {figure(trainer['loss'])} after {batches}{planned} batches", "default")


def _error(status: Status, recent: Recent) -> Text:
    found = status.get("validation") or {}
    if found.get("value") is None:
        return Text("no validation yet", "dim")
    text = Text(sparkline([value for _, value in recent.errors]), "magenta")
    text.append(f" {figure(found['value'])}", "bold")
    text.append(f" ({found.get('metric') or 'error'}); best constant ", "default")
    text.append(f"{figure(found.get('baseline'))}, linear emulator {figure(found.get('linear'))}")
    return text


def _workers(status: Status) -> Text:
    workers: Sequence[Mapping[str, Any]] = status.get("workers") or ()
    if not workers:
        return Text("none", "dim")
    text = Text()
    for worker in workers[:4]:
        text.append("\n" if text else "").append(f"{worker['worker']} ", "bold")
        if worker.get("simulation") is None:
            text.append(str(worker["state"]))
            continue
        text.append(f"simulation {worker['simulation']}, {worker.get('steps', 0)} steps")
        if worker.get("waits_for_room"):
            text.append(", waits for room", "yellow")
    if len(workers) > 4:
        busy = sum(worker["state"] == "busy" for worker in workers)
        text.append(f"\nand {len(workers) - 4} more; {busy} of {len(workers)} busy", "dim")
    spent = status.get("workers_s") or {}
    told = shown_shares(spent, AT_WORK, sum(spent.values()))
    return text.append(f"\n{told}", "dim") if told else text


def line(status: Status, recent: Recent) -> str:
    """The same in one line of ASCII, for logs."""
    counts, trainer = status["simulations"], status.get("trainer") or {}
    found, point = status.get("validation") or {}, point_of(status)
    wrong = int(counts.get("failed", 0)) + int(counts.get("quarantined", 0))
    parts = [
        f"{clock_time(status['seconds'])}: {doing(status)}",
        f"simulations {counts['completed']}/{counts['requested']}, {counts['running']} running"
        + (f", {wrong} failed" if wrong else ""),
        f"samples {point.received} received ({rate(recent.per_second('received'))}), "
        f"{point.drawn} drawn ({rate(recent.per_second('drawn'))})",
        f"reservoir {total(status, 'stored', False)}/{total(status, 'capacity', False)}, "
        f"{total(status, 'unseen', False)} unseen",
    ]
    if trainer.get("loss") is not None:
        waiting = (trainer.get("time_share") or {}).get("wait_data", 0.0)
        planned = f"/{recent.planned_batches}" if recent.planned_batches else ""
        parts.append(f"batch {trainer.get('batches', 0)}{planned}, loss {figure(trainer['loss'])}")
        parts.append(f"waits for data {percent(waiting)}")
    if found.get("value") is not None:
        parts.append(
            f"error {figure(found['value'])} (constant {figure(found.get('baseline'))}, "
            f"linear {figure(found.get('linear'))})"
        )
    left = time_left(status, recent)
    if left is not None:
        parts.append(f"{clock_time(left)} left")
    return " | ".join(parts)

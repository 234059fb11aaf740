"""What a user sees of a running campaign: a live panel, or plain lines without a terminal.

`cli` makes a Display and hands its methods to the supervisor. `panel` and `line` are pure: from the
coordinator's status, and what was remembered of earlier ones, to what is shown.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

HELD_OUT = "held-out"
RECENT_S = 20.0  # over which speeds are taken
PLAIN_EVERY_S = 5.0
BAR = 30  # characters
SHARES = (  # of the trainer's time: key, words, sign, style
    ("compute", "computing", "█", "green"),
    ("wait_data", "waiting for data", "░", "red"),
    ("validate", "validating", "▓", "cyan"),
    ("other", "other", "▒", "bright_black"),
)
SETTLED = ("completed", "failed", "quarantined", "partial")
_SPARKS = "▁▂▃▄▅▆▇█"

Status = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """The counts of one status; samples of training simulations, all ranks together."""

    seconds: float
    received: int
    drawn: int
    batches: int
    settled: int  # simulations


@dataclass
class Recent:
    """What is remembered of the statuses so far, for speeds and curves; given to pure functions."""

    planned_batches: int | None = None
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=200))
    losses: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=400))
    errors: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=400))
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    serials: dict[str, int] = field(default_factory=dict)  # stream -> the last one that was read

    def add(self, status: Status) -> None:
        """Remembers a status; one that comes again changes nothing."""
        point = _point(status)
        if not self.points or point.seconds > self.points[-1].seconds:
            self.points.append(point)
        for entry in self._new(status, "progress"):
            if entry.get("loss") is not None:
                self.losses.append((int(entry.get("batches", 0)), float(entry["loss"])))
        for entry in self._new(status, "validated"):
            if entry.get("value") is not None:
                self.errors.append((int(entry.get("batch", 0)), float(entry["value"])))

    def per_second(self, what: str) -> float | None:
        """The speed of a count over the last seconds; None while nothing can be said."""
        if len(self.points) < 2:
            return None
        last = self.points[-1]
        inside = [p for p in self.points if last.seconds - p.seconds <= RECENT_S]
        first = inside[0] if len(inside) > 1 else self.points[-2]
        elapsed = last.seconds - first.seconds
        gained = getattr(last, what) - getattr(first, what)
        return max(0, gained) / elapsed if elapsed > 0 else None

    def _new(self, status: Status, stream: str) -> list[Mapping[str, Any]]:
        page = [e for e in status.get(stream) or () if e["serial"] > self.serials.get(stream, -1)]
        if page:
            self.serials[stream] = page[-1]["serial"]
        return page


class Display:
    """Shows a running campaign; a context manager. Give its two methods to `run_campaign`.

    plain: lines even on a terminal. quiet: nothing until the end.
    """

    def __init__(
        self,
        console: Console,
        *,
        plain: bool = False,
        quiet: bool = False,
        planned_batches: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recent = Recent(planned_batches)
        self._console, self._quiet, self._clock = console, quiet, clock
        self._due_s = -math.inf
        self._status: Status | None = None
        able = console.is_terminal and not console.is_dumb_terminal
        able = able and console.encoding.lower().startswith("utf")
        self._live: Live | None = None
        if able and not plain and not quiet:
            self._live = Live(Text("Starting .."), console=console, auto_refresh=False)

    def on_status(self, status: Status) -> None:
        """The coordinator's newest status; about twice a second."""
        self._status = status
        self.recent.add(status)
        if self._live is not None:
            self._live.update(panel(status, self.recent), refresh=True)
        elif not self._quiet and self._clock() >= self._due_s:
            self._due_s = self._clock() + PLAIN_EVERY_S
            self._print(line(status, self.recent))

    def on_message(self, text: str) -> None:
        """A sentence about something that happened."""
        self.recent.messages.append(text.partition("\n")[0])
        if self._live is not None:
            shown = panel(self._status, self.recent) if self._status else Text(text)
            self._live.update(shown, refresh=True)
        elif not self._quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._status is not None and not self._quiet:
            self._print(line(self._status, self.recent))


# -- the live panel --------------------------------------------------------------------------------


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
    missing = int(counts["requested"]) - sum(int(counts.get(name, 0)) for name in SETTLED)
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
    point = _point(status)
    received, drawn = recent.per_second("received"), recent.per_second("drawn")
    return Text(
        f"{number(point.received)} received ({rate(received)}), "
        f"{number(point.drawn)} drawn ({rate(drawn)}), {size(_sum(status, 'bytes'))} streamed"
    )


def _reservoir(status: Status) -> Text:
    stored, unseen = _sum(status, "stored", False), _sum(status, "unseen", False)
    capacity = _sum(status, "capacity", False)
    seen = max(0, stored - unseen)
    parts = [(seen, "█", "blue"), (unseen, "▒", "cyan")]
    text = bar(parts, capacity)
    text.append(f" {number(seen)} seen, {number(unseen)} unseen, ")
    text.append(f"{number(max(0, capacity - stored))} free")
    if any(shard.get("blocked") for shard in _training(status)):
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
    return text


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
    return text


# -- one line --------------------------------------------------------------------------------------


def line(status: Status, recent: Recent) -> str:
    """The same in one line of ASCII, for logs."""
    counts, trainer = status["simulations"], status.get("trainer") or {}
    found, point = status.get("validation") or {}, _point(status)
    wrong = int(counts.get("failed", 0)) + int(counts.get("quarantined", 0))
    parts = [
        f"{clock_time(status['seconds'])}: {doing(status)}",
        f"simulations {counts['completed']}/{counts['requested']}, {counts['running']} running"
        + (f", {wrong} failed" if wrong else ""),
        f"samples {point.received} received ({rate(recent.per_second('received'))}), "
        f"{point.drawn} drawn ({rate(recent.per_second('drawn'))})",
        f"reservoir {_sum(status, 'stored', False)}/{_sum(status, 'capacity', False)}, "
        f"{_sum(status, 'unseen', False)} unseen",
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


# -- how things look -------------------------------------------------------------------------------


def bar(parts: Sequence[tuple[float, str, str]], total: float, width: int = BAR) -> Text:
    """A stacked bar: (value, sign, style) one after the other, then dots up to the total.

    Whatever is not zero gets a character, as long as there is room.
    """
    text, used = Text(), 0
    for value, sign, style in parts:
        if value > 0 and total > 0:
            n = min(width - used, max(1, round(width * value / total)))
            text.append(sign * n, style)
            used += n
    return text.append("·" * (width - used), "bright_black")


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line, logarithmic if it can be; the newest on the right."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    if len(finite) > width:  # the mean of equal pieces
        edges = [i * len(finite) // width for i in range(width + 1)]
        finite = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    if min(finite) > 0:
        finite = [math.log(v) for v in finite]
    low, high = min(finite), max(finite)
    steps = len(_SPARKS) - 1
    return "".join(
        _SPARKS[round(steps * (v - low) / (high - low)) if high > low else 0] for v in finite
    )


def figure(value: float | None) -> str:
    """A measured value in three digits."""
    return "unknown" if value is None else f"{value:.3g}"


def number(value: float) -> str:
    """A count with its thousands apart; one decimal below ten if it is no whole number."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def rate(value: float | None) -> str:
    return "?/s" if value is None else f"{number(value)}/s"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def size(n_bytes: float) -> str:
    """Bytes for people, in powers of a thousand: 16.4 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def clock_time(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _point(status: Status) -> Point:
    trainer, counts = status.get("trainer") or {}, status["simulations"]
    return Point(
        seconds=float(status["seconds"]),
        received=_sum(status, "admitted_samples", False),
        drawn=int(trainer.get("draws") or 0),
        batches=int(trainer.get("batches") or 0),
        settled=sum(int(counts.get(name, 0)) for name in SETTLED),
    )


def _sum(status: Status, counter: str, held_out: bool = True) -> int:
    shards = (status.get("shards") or {}).values() if held_out else _training(status)
    return sum(int((shard.get("counters") or {}).get(counter, 0)) for shard in shards)


def _training(status: Status) -> list[Mapping[str, Any]]:
    return [s for name, s in (status.get("shards") or {}).items() if name != HELD_OUT]

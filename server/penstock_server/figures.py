"""How numbers, times, bytes, shares and curves are written for people; pure.

Called by whatever prints: the display, `penstock check`, `penstock try` and the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

BAR = 30  # characters
_SPARKS = "▁▂▃▄▅▆▇█"


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


def duration(seconds: float) -> str:
    """A measured or supposed time in three digits: 2.5 ms, 3.1 s, 2 min 05 s."""
    if seconds < 1:
        return f"{figure(1000 * seconds)} ms"
    return f"{figure(seconds)} s" if seconds < 60 else clock_time(seconds)

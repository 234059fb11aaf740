"""What a check of the audit says: its question, the numbers, and what is wrong by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOLDS, BROKEN, UNKNOWN = "holds", "broken", "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `kind` is for scripts, `text` a sentence."""

    kind: str
    text: str
    simulation: int | None = None


@dataclass(frozen=True)
class Check:
    """One promise of the contract. unknown: why it cannot be judged, or not wholly."""

    name: str
    promise: str
    numbers: str
    findings: tuple[Finding, ...] = ()
    unknown: str = ""

    @property
    def verdict(self) -> str:
        if self.findings:
            return BROKEN
        return UNKNOWN if self.unknown else HOLDS


def spell(numbers: Iterable[int], most: int = 5) -> str:
    """Ascending numbers for people: 3-4, 9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:most]]
    return ", ".join(shown) + (f" and {len(runs) - most} more" if len(runs) > most else "")


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")

"""Where the seconds of a process go; a rank and a receiver keep one `TimeSpent` each.

Pure but for the clock that comes in, and free of heavy imports. A rank's seconds are named by its
activities, those of a wait with its reason and with what it is due to, see `wait_causes`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

GROUPS = ("compute", "wait_data", "validate", "other")
_WAIT, _BY = "wait ", " by "


class Clock(Protocol):
    """Where the seconds come from."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class WallClock:
    """The clock outside tests."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


class TimeSpent:
    """Seconds by what they went to; every second goes to exactly one name."""

    def __init__(self, clock: Clock, name: str = "start") -> None:
        self._clock = clock
        self._since = clock.now()
        self.name = name  # what time goes to now
        self.seconds: dict[str, float] = {}

    def on(self, name: str) -> None:
        """From now on time goes to `name`."""
        now = self._clock.now()
        self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self._since
        self._since, self.name = now, name

    def so_far(self) -> dict[str, float]:
        """A copy of the seconds, up to now."""
        self.on(self.name)
        return dict(self.seconds)


def wait(reason: str, cause: str) -> str:
    """The name for waiting."""
    return f"{_WAIT}{reason}{_BY}{cause}"


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Fractions for GROUPS, with the sum 1."""
    sums = dict.fromkeys(GROUPS, 0.0)
    for name, s in seconds.items():
        group = "wait_data" if name.startswith(_WAIT) else name
        sums[group if group in sums else "other"] += s
    total = sum(sums.values()) or 1.0
    return {group: s / total for group, s in sums.items()}


def activities(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by activity; all waiting is one, "wait"."""
    return _sums(("wait" if name.startswith(_WAIT) else name, s) for name, s in seconds.items())


def waits(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds waited, by reason."""
    return _sums((reason, s) for reason, _, s in _waited(seconds))


def causes(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds waited, by what the waiting is due to."""
    return _sums((cause, s) for _, cause, s in _waited(seconds))


def _waited(seconds: Mapping[str, float]) -> Iterable[tuple[str, str, float]]:
    for name, s in seconds.items():
        if name.startswith(_WAIT):
            reason, _, cause = name.removeprefix(_WAIT).partition(_BY)
            yield reason, cause, s


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, s in pairs:
        sums[name] = sums.get(name, 0.0) + s
    return sums

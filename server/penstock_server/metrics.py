"""Prometheus metrics of every process; the only place that knows prometheus_client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.time_spent import activities, causes

_WORD = re.compile(r"[^a-zA-Z0-9_]")

Counts = Callable[[], Mapping[str, float]]
Seconds = Callable[[], Mapping[tuple[str, str], float]]  # (activity, cause or "") -> seconds


class _Counts(Collector):
    """Reads a process's own books whenever it is scraped; nothing is counted twice."""

    def __init__(self, role: str, labels: Mapping[str, str], counts: Counts) -> None:
        self._role, self._labels, self._counts = role, dict(labels), counts

    def collect(self) -> Iterator[Metric]:
        for name, value in sorted(self._counts().items()):
            family = GaugeMetricFamily(
                f"penstock_{self._role}_{name}",
                f"{name} of a {self._role}",
                labels=list(self._labels),
            )
            family.add_metric(list(self._labels.values()), value)
            yield family


class _Seconds(Collector):
    """The same for seconds by activity and cause, as one counter."""

    def __init__(self, whose: str, labels: Mapping[str, str], seconds: Seconds) -> None:
        self._whose, self._labels, self._seconds = whose, dict(labels), seconds

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            f"penstock_{self._whose}_seconds",
            f"seconds of a {self._whose} by what they went to, and what waiting was due to",
            labels=[*self._labels, "activity", "cause"],
        )
        for (activity, cause), value in sorted(self._seconds().items()):
            family.add_metric([*self._labels.values(), activity, cause], value)
        yield family


class Newest:
    """The numbers of the newest report of a process, for `serve_counts`."""

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}
        self._seconds: dict[tuple[str, str], float] = {}

    def take(self, report: Mapping[str, Any]) -> None:
        """Every number in the report, those of a table inside it by both names.

        The table `time_s`, of a `TimeSpent`, goes to the counter of seconds instead.
        """
        found: dict[str, float] = {}
        for name, value in report.items():
            if name == "time_s":
                self._seconds = by_activity_and_cause(value)
                continue
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            for key, number in inner:
                if isinstance(number, int | float):
                    found[_WORD.sub("_", f"{name}_{key}".rstrip("_"))] = float(number)
        self._numbers = found

    def counts(self) -> Mapping[str, float]:
        return self._numbers

    def seconds(self) -> Mapping[tuple[str, str], float]:
        return self._seconds


def by_activity_and_cause(seconds: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """The seconds of a `TimeSpent`; only waiting has causes."""
    found = {(name, ""): s for name, s in activities(seconds).items() if name != "wait"}
    return {**found, **{("wait", cause): s for cause, s in causes(seconds).items()}}


def serve_counts(
    port: int,
    role: str,
    labels: Mapping[str, str],
    counts: Counts,
    seconds: Seconds | None = None,
    whose: str = "",
) -> None:
    """Serves counts() as gauges on 127.0.0.1:port/metrics, from a thread; port 0 serves nothing.

    seconds: served as the counter penstock_WHOSE_seconds_total; whose is the role if not said.
    """
    if not port:
        return
    registry = CollectorRegistry()
    registry.register(_Counts(role, labels, counts))
    if seconds is not None:
        registry.register(_Seconds(whose or role, labels, seconds))
    start_http_server(port, addr="127.0.0.1", registry=registry)

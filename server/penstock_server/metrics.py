"""Prometheus metrics of every process; the only place that knows prometheus_client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_WORD = re.compile(r"[^a-zA-Z0-9_]")

Counts = Callable[[], Mapping[str, float]]


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


class Newest:
    """The numbers of the newest report of a process, for `serve_counts`."""

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}

    def take(self, report: Mapping[str, Any]) -> None:
        """Every number in the report, those of a table inside it by both names."""
        found: dict[str, float] = {}
        for name, value in report.items():
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            for key, number in inner:
                if isinstance(number, int | float):
                    found[_WORD.sub("_", f"{name}_{key}".rstrip("_"))] = float(number)
        self._numbers = found

    def counts(self) -> Mapping[str, float]:
        return self._numbers


def serve_counts(port: int, role: str, labels: Mapping[str, str], counts: Counts) -> None:
    """Serves counts() as gauges on 127.0.0.1:port/metrics, from a thread; port 0 serves nothing."""
    if not port:
        return
    registry = CollectorRegistry()
    registry.register(_Counts(role, labels, counts))
    start_http_server(port, addr="127.0.0.1", registry=registry)

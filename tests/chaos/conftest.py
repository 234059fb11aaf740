"""What the chaos tests share: whole campaigns of tests/system, a network, a table at the end."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from network import Namespace, Network
from whole import Started

REPORT = pytest.StashKey[list[dict[str, Any]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """A test adds a row of figures."""
    return request.config.stash[REPORT]


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    for run in started.runs:
        run.stop()


@pytest.fixture
def namespace() -> Iterator[Network]:
    """A network that can be disturbed; the test is skipped where there can be none."""
    missing = Namespace.missing()
    if missing:
        pytest.skip(missing)
    network = Namespace()
    yield network
    network.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Faults and recoveries, a line a campaign and one for all."""
    rows = config.stash[REPORT]
    if not rows:
        return
    say = terminalreporter.write_line
    terminalreporter.section("faults survived")
    for row in rows:
        seconds = row["recovery_s"]
        say(
            f"{row['campaign']}: {row['faults']} faults, recovery median "
            f"{statistics.median(seconds):.1f} s, worst {max(seconds):.1f} s ({row['worst']}), "
            f"lost {row['lost']}, twice {row['twice']}"
        )
    every = [s for row in rows for s in row["recovery_s"]]
    say(
        f"together: {sum(row['faults'] for row in rows)} faults, recovery median "
        f"{statistics.median(every):.1f} s, worst {max(every):.1f} s, lost "
        f"{sum(row['lost'] for row in rows)}, twice {sum(row['twice'] for row in rows)}"
    )

"""What the system tests share: runs that are stopped when a test ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from whole import Started


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    for run in started.runs:
        run.stop()

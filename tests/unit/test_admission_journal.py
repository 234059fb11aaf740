"""The journal of admissions over kills and resumed runs: no line lost, none written twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock_server.admission_journal import LINE, AdmissionJournal, begin_life, read_lines
from penstock_server.slab import DESCRIPTOR


def rows(*admitted: tuple[int, int]) -> np.ndarray:
    """Descriptors of slots, by (ordinal, simulation)."""
    made = np.zeros(len(admitted), DESCRIPTOR)
    made["ordinal"], made["simulation"] = np.array(admitted).T
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def simulations(path: Path) -> list[int]:
    return read_lines(path)["simulation"].tolist()


def test_a_receiver_that_died_before_a_line_writes_it_when_it_comes_back(path: Path) -> None:
    begin_life(path)
    journal = AdmissionJournal(path)
    for row in rows((1, 7), (2, 8)):
        journal.write(row)
    AdmissionJournal(path).catch_up(rows((1, 7), (2, 8), (3, 9)))
    assert simulations(path) == [7, 8, 9]


def test_half_a_line_is_written_again(path: Path) -> None:
    AdmissionJournal(path).write(rows((1, 7))[0])
    with path.open("ab") as file:
        file.write(b"half")
    AdmissionJournal(path).catch_up(rows((1, 7), (2, 8)))
    assert simulations(path) == [7, 8]


def test_a_resumed_run_whose_first_receiver_died_at_once_loses_no_line(path: Path) -> None:
    journal = AdmissionJournal(path)
    for row in rows((40, 7), (41, 8)):
        journal.write(row)
    with path.open("ab") as file:
        file.write(b"half")
    begin_life(path)
    AdmissionJournal(path).catch_up(rows((20, 9)))
    assert simulations(path) == [7, 8, 9]
    AdmissionJournal(path).catch_up(rows((20, 9)))
    assert simulations(path) == [7, 8, 9]


def test_a_first_life_begins_with_an_empty_journal(path: Path) -> None:
    begin_life(path)
    path.touch()
    begin_life(path)
    assert path.stat().st_size == 0
    assert read_lines(path).dtype == LINE

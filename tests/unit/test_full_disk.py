"""Files of a run on a disk that takes no more: what stood there stays, what is half is known."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from campaigns import small

from penstock_server import config, run_folder
from penstock_server.admission_journal import LINE, AdmissionJournal, read_lines
from penstock_server.history import History
from penstock_server.report.files import read_history
from penstock_server.run_folder import RunFolderError
from penstock_server.slab import DESCRIPTOR


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    """As on a full disk, a write beyond that is cut short, and the next one is an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rows(*ordinals: int) -> np.ndarray:
    made = np.zeros(len(ordinals), DESCRIPTOR)
    made["ordinal"] = made["simulation"] = ordinals
    return made


def test_a_line_that_was_cut_short_is_an_error_and_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = AdmissionJournal(path)
    journal.write(rows(1)[0])
    with no_file_above(LINE.itemsize + 10), pytest.raises(OSError):
        journal.write(rows(2)[0])
    assert path.stat().st_size == LINE.itemsize + 10
    AdmissionJournal(path).catch_up(rows(1, 2, 3))  # the receiver that is started in its place
    assert read_lines(path)["ordinal"].tolist() == [1, 2, 3]


def test_a_campaign_that_cannot_be_saved_leaves_the_one_that_stands(tmp_path: Path) -> None:
    campaign = small()
    path = tmp_path / "campaign.toml"
    campaign.save(path)
    with no_file_above(100), pytest.raises(OSError):
        small("seed=2").save(path)
    assert config.load(path) == campaign


def test_half_a_row_of_the_history_is_cut_when_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    History(path).progress({"seconds": 1.0, "batches": 10}, 2)
    with no_file_above(path.stat().st_size + 4), pytest.raises(OSError):
        History(path).progress({"seconds": 2.0, "batches": 20}, 3)
    History(path).progress({"seconds": 3.0, "batches": 30}, 4)
    found = read_history(path)
    assert found is not None
    assert found["batches"] == [10.0, 30.0]


def test_a_history_without_a_whole_first_line_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("seconds,bat")
    History(path).progress({"seconds": 1.0, "batches": 10}, 2)
    found = read_history(path)
    assert found is not None
    assert found["batches"] == [10.0]


def test_errors_of_a_disk_are_told_with_the_way_on_and_others_are_not(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path, "x")
    assert run.disk_trouble() == ""
    assert run.disk_trouble(OSError(errno.EADDRINUSE, "in use")) == ""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE):
        told = run.disk_trouble(OSError(number, os.strerror(number)))
        assert os.strerror(number) in told
        assert f"penstock run --resume {run.root}" in told


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_taken_for_another_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    run = run_folder.create(tmp_path, "x")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RunFolderError, match="has no locks") as refused:
        run.lock()
    assert "another supervisor" not in str(refused.value)


def test_who_holds_a_run_is_told_by_name(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path, "x")
    with run.lock(), pytest.raises(RunFolderError, match=rf"process {os.getpid()} on \S+"):
        run.lock()

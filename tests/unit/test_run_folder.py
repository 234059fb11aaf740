"""Folders of runs: one supervisor each, and memory given back only when nobody holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server import run_folder
from penstock_server.run_folder import RunFolderError


def test_a_second_supervisor_on_the_same_run_is_refused(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path, "x")
    run.campaign.touch()
    with run.lock(), pytest.raises(RunFolderError, match="in use by another supervisor"):
        run_folder.reopen(run.root).lock()
    run_folder.reopen(run.root).lock().close()


def test_memory_of_a_dead_run_is_given_back_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    living, dead, new = (run_folder.create(tmp_path, name) for name in "abc")
    held = living.make_scratch()
    dead.make_scratch().close()
    try:
        with new.make_scratch():
            assert living.snapshots.is_dir()
            assert not dead.scratch.exists()
    finally:
        held.close()
        for run in (living, dead, new):
            run.clear_scratch()


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="it has no campaign"):
        run_folder.reopen(tmp_path)

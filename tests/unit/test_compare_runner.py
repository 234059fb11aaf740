"""A campaign as a process: what a failure says, and that it ends when it is told to."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from penstock_server.compare.errors import CompareError
from penstock_server.compare.runner import ProcessRunner

# Called as `penstock run CAMPAIGN --set .. --runs FOLDER --plain`.
FINISHES = """
import pathlib, sys
run = pathlib.Path(sys.argv[sys.argv.index("--runs") + 1]) / "small" / "1"
run.mkdir(parents=True)
(run / "campaign.toml").write_text(" ".join(sys.argv[1:]))
"""
FAILS = "import sys; print('there is no solver'); sys.exit(1)"
WAITS = """
import pathlib, signal, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--runs") + 1])

def leave(*_):
    (folder / "ended in order").touch()
    sys.exit(130)

signal.signal(signal.SIGTERM, leave)
(folder / "waits").touch()
signal.pause()
"""


def runner(program: str) -> ProcessRunner:
    return ProcessRunner((sys.executable, "-c", program))


def test_a_run_gets_its_overrides_and_gives_its_folder(tmp_path: Path) -> None:
    found = runner(FINISHES).run(Path("c.toml"), ["seed=2", "a.b=1"], tmp_path / "place")
    assert found == tmp_path / "place" / "small" / "1"
    told = (found / "campaign.toml").read_text()
    assert told.startswith("run c.toml --set seed=2 --set a.b=1 --runs")


def test_what_an_interrupted_run_left_is_gone_before_it_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "place" / "small" / "0").mkdir(parents=True)
    (tmp_path / "place" / "small" / "0" / "campaign.toml").touch()
    assert runner(FINISHES).run(Path("c.toml"), [], tmp_path / "place").name == "1"


def test_a_run_that_fails_is_told_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=r"exit code 1.*output\.txt") as caught:
        runner(FAILS).run(Path("c.toml"), [], tmp_path / "place")
    assert caught.value.detail == "there is no solver"


def test_stop_ends_what_runs_in_order_and_nothing_starts_after_it(tmp_path: Path) -> None:
    made, ended = runner(WAITS), []

    def run() -> None:
        with pytest.raises(CompareError):
            made.run(Path("c.toml"), [], tmp_path)
        ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "waits").exists():
        assert time.monotonic() < deadline
        thread.join(0.01)
    made.stop()
    thread.join(30)
    assert ended == [True]
    assert (tmp_path / "ended in order").exists()
    with pytest.raises(CompareError, match="stopped"):
        made.run(Path("c.toml"), [], tmp_path)

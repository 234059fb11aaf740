"""The folder in memory of `penstock wrap`, and the brake on a program that fills it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.wrapping.brake import Brake
from penstock.wrapping.program import Program
from penstock.wrapping.scratch import PREFIX, Scratch, memory_of


def test_a_folder_lasts_as_long_as_its_run(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        with scratch.folder("simulation-1") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a.npy").write_bytes(bytes(10_000))
            assert memory_of(folder) >= 10_000
        with pytest.raises(ZeroDivisionError), scratch.folder("simulation-1"):
            raise ZeroDivisionError
        assert not list(scratch.root.glob("simulation-*"))
        assert scratch.root.stat().st_mode & 0o077 == 0
    scratch.close()
    assert not list(tmp_path.iterdir())


def test_the_next_wrapper_removes_what_nobody_holds(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "run").touch()
    with Scratch(tmp_path) as mine:
        assert not left.exists()
        with Scratch(tmp_path):
            assert mine.root.exists()


class FakeProgram:
    """Says when it is halted."""

    def __init__(self) -> None:
        self.halted = False
        self.stopped = threading.Event()

    def halt(self) -> None:
        self.halted = True
        self.stopped.set()

    def resume(self) -> None:
        self.halted = False


@pytest.mark.timeout(30)
def test_a_program_that_fills_the_folder_while_a_step_waits_is_halted(tmp_path: Path) -> None:
    program = FakeProgram()
    with Brake(cast(Program, cast(Any, program)), tmp_path, room_bytes=100_000) as brake:
        (tmp_path / "a.npy").write_bytes(bytes(200_000))
        assert not program.stopped.wait(0.2)  # nothing is being sent
        with brake.sending():
            assert program.stopped.wait(20)
        assert program.halted
        brake.release()
        assert not program.halted
        program.stopped.clear()
        (tmp_path / "a.npy").write_bytes(bytes(10_000))
        with brake.sending():
            assert not program.stopped.wait(0.2)
        assert brake.waited_s > 0.2

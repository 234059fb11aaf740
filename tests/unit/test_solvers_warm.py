"""The JIT cache: what an interrupted compilation leaves behind is found and removed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from penstock_solvers import warm

pytestmark = pytest.mark.timeout(30)


def make(folder: Path, name: str, done: bool, age_s: float) -> Path:
    file = folder / f"{name}.c"
    file.write_text("/* generated */")
    if done:
        (folder / f"{name}.c.cached").touch()
    then = time.time() - age_s
    os.utime(file, (then, then))
    return file


def test_an_interrupted_compilation_is_removed_and_a_finished_one_kept(tmp_path: Path) -> None:
    finished = make(tmp_path, "finished", done=True, age_s=100)
    interrupted = make(tmp_path, "interrupted", done=False, age_s=100)
    assert warm.remove_leftovers(tmp_path) == [interrupted]
    assert finished.exists()
    assert not interrupted.exists()


def test_a_compilation_under_way_is_waited_for(tmp_path: Path) -> None:
    under_way = make(tmp_path, "under_way", done=False, age_s=0)
    finish = threading.Timer(0.3, (tmp_path / "under_way.c.cached").touch)
    finish.start()
    assert warm.remove_leftovers(tmp_path, patience_s=20.0) == []
    finish.join()
    assert under_way.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert warm.cache_folder() == Path("/somewhere/fenics")

"""The folder in memory in which the wrapped program runs; gone with the wrapper, however it ends.

As with the folders of a campaign, a locked file `run` in it says that its owner lives: whoever
comes next, a wrapper or a supervisor, removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

PREFIX = "penstock-wrap-"
HELD = "run"


class Scratch:
    """Use as a context manager. `parent` is a memory file system, /dev/shm as a rule."""

    def __init__(self, parent: Path) -> None:
        _sweep(parent)
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Under another name until it is locked: a sweep in between would find it unheld.
        fresh = self.root / f"{HELD}.new"
        self._held = fresh.open("w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        fresh.rename(self.root / HELD)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty folder for one run of the program, removed afterwards."""
        folder = self.root / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """May be called twice."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._held.close()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def memory_of(folder: Path) -> int:
    """Bytes that the files below a folder take; holes of sparse files take none."""
    total, folders = 0, [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # it was renamed or removed while we looked
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += 512 * entry.stat(follow_symlinks=False).st_blocks
    return total


def free_bytes(parent: Path) -> int:
    """What the file system still takes."""
    return shutil.disk_usage(parent).free


def _sweep(parent: Path) -> None:
    for root in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (root / HELD).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(root, ignore_errors=True)

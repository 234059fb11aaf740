"""A small disk of the test's own for a run's folder, which can be filled; Linux, root."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

FILLER = "filler"


class SmallDisk:
    """A tmpfs of so many megabytes, mounted on a folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        _call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "penstock", folder)

    @staticmethod
    def missing(folder: Path) -> str | None:
        """Why there can be none below this folder, or None."""
        if os.geteuid() != 0:
            return "a disk of a test's own needs root"
        try:
            SmallDisk(folder / "trial", 1).close()
        except AssertionError as error:
            return f"no disk of a test's own can be mounted here ({error})"
        return None

    def fill(self) -> None:
        """Takes all that is left, to the last byte, and what is given back meanwhile."""
        with (self.folder / FILLER).open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                while self._wrote(file.fileno(), size):
                    pass

    def clear(self) -> None:
        """Gives back what `fill` took."""
        (self.folder / FILLER).unlink()

    def make_read_only(self) -> None:
        """Nobody may have a file open for writing there."""
        _call("mount", "-o", "remount,ro", self.folder)

    def make_writable(self) -> None:
        _call("mount", "-o", "remount,rw", self.folder)

    def close(self) -> None:
        """Takes it away, also while somebody still has a file open there."""
        _call("umount", "-l", self.folder)
        self.folder.rmdir()

    @staticmethod
    def _wrote(file: int, size: int) -> bool:
        try:
            return os.write(file, bytes(size)) > 0
        except OSError:
            return False


def wait_for_end(process: subprocess.Popen[bytes], disk: SmallDisk, timeout_s: float) -> int:
    """Keeps the disk full until the process has ended; its exit code."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        assert time.monotonic() < deadline, "The run goes on though its disk is full."
        disk.fill()
        time.sleep(0.05)
    return process.wait()


def _call(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"

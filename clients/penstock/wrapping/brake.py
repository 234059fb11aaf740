"""Halts the wrapped program while the server has no room and the folder in memory is full.

A solver with the client waits inside `send`; an unchanged program knows nothing of a full reservoir
and would fill the memory. While a step waits to be sent the wrapper's own thread waits with it,
hence the second one here, which lives for one run of the program.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from penstock.wrapping.program import Program
from penstock.wrapping.scratch import memory_of

LOOK_S = 0.05


class Brake:
    """Use as a context manager around one run; `sending` around each step that is sent."""

    def __init__(self, program: Program, folder: Path, room_bytes: int) -> None:
        self.waited_s = 0.0  # in `sending`, all together: not the program's own time
        self._program, self._folder, self._room_bytes = program, folder, room_bytes
        self._lock = threading.Lock()
        self._sending = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="penstock-brake", daemon=True)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """The program may be halted in here."""
        began = time.monotonic()
        with self._lock:
            self._sending = True
        try:
            yield
        finally:
            with self._lock:
                self._sending = False
            self.waited_s += time.monotonic() - began

    def release(self) -> None:
        """Lets the program go on; called when no complete step is left to be sent."""
        with self._lock:
            self._program.resume()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            with self._lock:
                if not self._sending or self._program.halted:
                    continue
                if memory_of(self._folder) > self._room_bytes:
                    self._program.halt()

    def __enter__(self) -> Brake:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self.release()

"""Black boxes for the tests of `penstock wrap`, and the wrapper as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scripted import wait_for

from penstock.wrapping.scratch import PREFIX

SHAPE = (8, 6)
FIELD = ["--field", "u=out_*.npy"]

HEAD = f"""
import io, os, sys, time
import numpy as np
simulation, n_steps = int(sys.argv[1]), int(sys.argv[2])
def content(step):
    n = np.arange(48) / 48
    return (1000 * simulation + step + n).astype("f4").reshape{SHAPE}
"""
GOOD = """
for step in range(n_steps):
    np.save(f"out_{step}.npy", content(step))
"""
# In five pieces, each of which can be seen by whoever looks at the wrong moment.
SLOW = """
for step in range(n_steps):
    whole = io.BytesIO()
    np.save(whole, content(step))
    data = whole.getvalue()
    with open(f"out_{step}.npy", "wb", buffering=0) as file:
        for piece in range(0, len(data), 70):
            file.write(data[piece:piece + 70])
            time.sleep(0.004)
"""
# A process of its own beside it, as with a shell script around an MPI program.
FAMILY = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
np.save("out_0.npy", content(0))
with open("new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("new", "pids")
time.sleep(1000)
"""


def content(simulation: int, step: int) -> np.ndarray:
    """What the programs compute."""
    n = np.arange(48) / 48
    return (1000 * simulation + step + n).astype("f4").reshape(SHAPE)


def _hear_ctrl_c() -> None:
    """A shell lets what it starts with `&` ignore SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Wrapper:
    """`penstock wrap` around a Python program; its folder in memory is below `memory`."""

    def __init__(
        self,
        tmp_path: Path,
        body: str,
        *options: str,
        steps: int = 5,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.memory = tmp_path / "memory"
        self.memory.mkdir(exist_ok=True)
        self._log = tmp_path / "wrap.log"
        program = tmp_path / "program.py"
        program.write_text(HEAD + body)
        command = [
            sys.executable, "-m", "penstock", "wrap", "--memory", str(self.memory),
            *(options or FIELD), "--", sys.executable, str(program), "${simulation}", str(steps),
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - it takes no lock
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def finish(self, timeout_s: float = 40.0) -> int:
        return self.process.wait(timeout_s)

    def folders(self) -> list[Path]:
        """What stands in memory; the wrapper's folders."""
        return list(self.memory.glob(f"{PREFIX}*"))

    def family(self) -> tuple[int, int]:
        """The process ids of the program FAMILY and of its child, as soon as both run."""
        found: list[Path] = []

        def there() -> bool:
            assert self.process.poll() is None, self.output
            found[:] = self.memory.glob(f"{PREFIX}*/simulation-*/pids")
            return bool(found)

        wait_for(there, 40.0, "the program")
        first, second = map(int, found[0].read_text().split())
        return first, second

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def assert_gone(pids: Sequence[int], wrapper: Wrapper) -> None:
    wait_for(lambda: not any(map(alive, pids)), what="the processes to end")
    wait_for(lambda: not wrapper.folders(), what="the folder to go")

"""Coverage-guided fuzzing of one port, until so many frames were sent: what `make fuzz` runs.

    python tests/fuzz/run.py data --frames 5000000 --seed 1

An input that raises is kept as crash-* in the current folder, and the exit code is not 0.
Needs `pip install '.[fuzz]'`, from a checkout.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["penstock", "penstock_server"]):
    from control_port import ControlPort
    from data_port import DataPort

SAY_EVERY = 50_000  # inputs


class Enough:
    """One input after the other; ends the process when there were enough frames."""

    def __init__(self, port: DataPort | ControlPort, name: str, frames: int) -> None:
        self._port, self._name, self._frames = port, name, frames
        self._inputs, self._began_s = 0, time.monotonic()

    def __call__(self, data: bytes) -> None:
        self._port.take(data)
        self._inputs += 1
        done = self._port.frames >= self._frames
        if done or self._inputs % SAY_EVERY == 0:
            seconds = time.monotonic() - self._began_s
            print(
                f"{self._name} port: {self._port.frames} frames in {self._inputs} inputs, "
                f"{seconds:.0f} s; {largest_mb():.0f} MB at most",
                flush=True,
            )
        if done:
            self._port.close()
            os._exit(0)  # libFuzzer would go on, and has no other way out


def largest_mb() -> float:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", choices=("data", "control"))
    parser.add_argument("--frames", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    port = DataPort() if options.port == "data" else ControlPort()
    arguments = [sys.argv[0], f"-seed={options.seed}", "-max_len=200", "-verbosity=0"]
    atheris.Setup(arguments, Enough(port, options.port, options.frames))
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""What the benchmarks of the stream start: a coordinator, a receiver, clients, a training loop.

The processes are those that a run starts, with the settings that it would give them; only the ranks
are missing. Everything ends with the stage, by process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pinned
import psutil

from penstock_server import run_folder, wiring
from penstock_server.addresses import Addresses
from penstock_server.config import Campaign
from penstock_server.curve import make_keys
from penstock_server.design import draw
from penstock_server.processes import memory_settings
from penstock_server.run_folder import RunFolder
from penstock_server.slab import BOOKS, Slab, SlabError

PATIENCE_S = 120.0
DISK = Path("/var/tmp")
IN_MEMORY = ("tmpfs", "ramfs")

TRAINING = f"""
import os
import torch
if core := os.environ.get({pinned.CORE!r}):
    os.sched_setaffinity(0, {{int(core)}})
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Linear(6, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10_000))
adam = torch.optim.Adam(net.parameters())
x, y = torch.randn(10, 6), torch.randn(10, 10_000)
print("ready", flush=True)
while True:
    adam.zero_grad()
    torch.nn.functional.mse_loss(net(x), y).backward()
    adam.step()
"""


def pin() -> None:
    """From now on the training loop has the first core, and everything else the others."""
    os.sched_setaffinity(0, pinned.apart())


class Stage:
    """Processes that end with it, and what they complained of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    def start(
        self, *arguments: Any, python: str = sys.executable, **environment: str
    ) -> subprocess.Popen[str]:
        """python ARGUMENTS, with its output in a pipe."""
        return self.start_command([python, *map(str, arguments)], environment)

    def start_command(
        self, command: list[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "errors.txt").open("a"),
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self._stack.callback(process.wait, 20)
        self._stack.callback(process.kill)
        return process

    def train(self) -> None:
        """A loop that takes its share of the machine; returns once it runs."""
        process = self.start("-c", TRAINING)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    def until(self, found: Callable[[], Any]) -> Any:
        """Looks every millisecond; raises TimeoutError with what the processes complained of."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := found()):
            if time.monotonic() > deadline:
                errors = (self.folder / "errors.txt").read_text()
                raise TimeoutError(f"Nothing moves for {PATIENCE_S:.0f} s.\n{errors}")
            time.sleep(0.001)
        return value


@dataclass(frozen=True)
class Served:
    """A campaign's coordinator and its one receiver, waiting for workers."""

    stage: Stage
    run: RunFolder
    slab: Slab
    addresses: Addresses
    feed: str
    receiver: subprocess.Popen[str]

    def admitted(self) -> int:
        return int(self.slab.books[BOOKS.index("admitted")])

    def worker(self, name: str) -> dict[str, str]:
        """The environment of a client program."""
        return {
            "PENSTOCK_COORDINATOR": self.addresses.coordinator,
            "PENSTOCK_WORKER": name,
            "PENSTOCK_KEYS": self.addresses.client_keys or "",
        }


@contextmanager
def stage() -> Iterator[Stage]:
    """Ends with its processes when the program is told to, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        made = Stage(Path(folder))
        try:
            yield made
        finally:
            made.close()


@contextmanager
def disk_folder(where: Path) -> Iterator[Path]:
    """A new folder below one that lies on a disk; ends the program if that lies in memory."""
    mounts = {Path(m.mountpoint): m.fstype for m in psutil.disk_partitions(all=True)}
    under = next(p for p in (where.resolve(), *where.resolve().parents) if p in mounts)
    if mounts[under] in IN_MEMORY:
        raise SystemExit(f"{where} lies in memory ({mounts[under]}); name a folder on a disk.")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=where) as folder:
        yield Path(folder)


@contextmanager
def serve(campaign: Campaign) -> Iterator[Served]:
    """Coordinator and receiver of a campaign with one training shard and nothing held out."""
    with stage() as here:
        run = run_folder.create(here.folder / "runs", "bench")
        addresses = Addresses.choose(["0"])
        held = run.make_scratch()
        try:
            if campaign.security.mode == "curve":
                addresses = replace(addresses, keys=make_keys(run.keys))
            told = wiring.coordinator_settings(campaign, run, addresses, draw(campaign), "1", {})
            told.save(run.settings / "coordinator.json")
            wiring.receiver_settings(campaign, run, addresses, "0", None).save(
                run.settings / "receiver.json"
            )
            _, receiver = (
                here.start(
                    "-m", f"penstock_server.{name}", "--settings", run.settings / f"{name}.json",
                    **env,
                )
                for name, env in (("coordinator", {}), ("receiver", memory_settings()))
            )  # fmt: skip
            slab = here.until(lambda: _attached(run.shard("0")))
            yield Served(here, run, slab, addresses, wiring.feed_address(run, "0"), receiver)
        finally:
            here.close()
            held.close()
            shutil.rmtree(run.scratch, ignore_errors=True)


def _attached(folder: Path) -> Slab | None:
    try:
        return Slab.attach(folder)
    except SlabError:
        return None

"""The keeper: a process that copies what shards admit into the run's data set.

`python -m penstock_server.keeper --settings FILE`, started by the supervisor when the campaign
keeps or stores fields. It reads the slabs beside the receivers, and tells each of them up to where
it has come, so that nothing is evicted before it is stored. A restarted one goes on where the last
one was. When the file `finish` appears it looks once more, closes the data set and ends; a signal
could come before the process is able to hear it.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.processes import die_with_parent
from penstock.wire import ROLES
from penstock_server.data_file import DataFile, DataLayout
from penstock_server.ledger import Ledger
from penstock_server.metrics import serve_counts
from penstock_server.slab import COMMITTED, Slab
from penstock_server.views import wait_for_slab

POLL_S = 0.02  # between two looks at the slabs, at the least
A_SLOT_S = 2e-6  # ... and for each slot, ten times what it costs to look at one
WAITING = 16  # a slab of which one part in so many is new is looked at again at once
ENDINGS_S = 2.0  # between two looks for simulations that have ended


@dataclass(frozen=True)
class KeeperSettings:
    """Everything that a keeper is told, as JSON."""

    path: str  # of the data set
    finish: str  # a file; when it is there, nothing more will be admitted
    shards: list[str]  # folders of slabs
    layout: dict[str, Any]  # of DataLayout
    keep: str | float  # "held-out", "all", or the fraction of the training simulations
    seed: int
    patience_s: float = 120.0
    metrics_port: int = 0

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> KeeperSettings:
        return cls(**json.loads(path.read_text()))


class Keeper:
    """Copies out of slabs into a file; knows no socket and no clock."""

    def __init__(self, slabs: list[Slab], file: DataFile, keep: str | float, seed: int) -> None:
        self._slabs, self._file = slabs, file
        self._keep, self._seed = keep, seed
        self._ended: set[int] = set()
        self.n_bytes = 0
        self.n_steps = 0
        self.n_left_out = 0  # segments without a row

    def turn(self) -> int:
        """Stores everything that was admitted since the last turn; the number of segments."""
        return sum(self._copy(slab) for slab in self._slabs)

    def pause_s(self, n: int) -> float:
        """How long to let segments gather after a turn that found n; each look reads all slots."""
        n_slots = sum(slab.spec.n_slots for slab in self._slabs)
        return 0.0 if WAITING * n >= n_slots else max(POLL_S, A_SLOT_S * n_slots)

    def note_endings(self) -> None:
        """Writes down how many steps simulations have, as far as the shards know."""
        for slab in self._slabs:
            ledger = Ledger(slab.folder / "ledger", writable=False)
            for simulation in ledger.simulations():
                n_steps = ledger.n_steps(simulation)
                if n_steps is None or simulation in self._ended:
                    continue
                # Its end can be known before its first step is stored: then it is looked at again.
                if any(self._file.end(role, simulation, n_steps) for role in self._file.rows):
                    self._ended.add(simulation)

    def _copy(self, slab: Slab) -> int:
        # What is committed when the first copy is made is in the second: without a newest ordinal
        # from before, a segment could be passed over that was committed while slots were read.
        before = slab.descriptor.copy()
        newest = int(before["ordinal"][before["state"] == COMMITTED].max(initial=0))
        done = int(slab.kept[0])
        if newest <= done:
            return 0
        now = slab.descriptor.copy()
        new = np.flatnonzero(
            (now["state"] == COMMITTED) & (now["ordinal"] > done) & (now["ordinal"] <= newest)
        )
        for slot in new[np.argsort(now["ordinal"][new])]:
            self._store(slab, int(slot), now[slot])
        slab.kept[0] = newest
        return len(new)

    def _store(self, slab: Slab, slot: int, row: Any) -> None:
        role, simulation = ROLES[int(row["role"])], int(row["simulation"])
        if role == "train" and not wanted(simulation, self._keep, self._seed):
            return
        at = self._file.row(role, simulation, slab.parameters[slot, : slab.spec.n_parameters])
        if at is None:
            self.n_left_out += 1
            return
        n = int(row["n_steps"])
        first = int(row["segment"]) * slab.spec.segment_steps
        self.n_bytes += self._file.put(
            role,
            at,
            first,
            slab.t[slot, :n],
            {name: array[slot, :n] for name, array in slab.fields.items()},
            {name: array[int(row["row"])] for name, array in slab.inputs.items()},
        )
        self.n_steps += n


def wanted(simulation: int, keep: str | float, seed: int) -> bool:
    """Whether a training simulation is kept; the same ones in every run of the seed."""
    if isinstance(keep, str):
        return keep == "all"
    digest = hashlib.sha256(f"{seed}/keep/{simulation}".encode()).digest()
    return int.from_bytes(digest[:8], "little") < keep * 2**64


def serve(settings: KeeperSettings) -> None:
    """Until told to finish, or SIGTERM. Raises OSError when the file cannot be written."""
    leaving = False

    def leave(*_: object) -> None:
        nonlocal leaving
        leaving = True

    signal.signal(signal.SIGTERM, leave)
    slabs = [wait_for_slab(Path(f), settings.patience_s, writable=True) for f in settings.shards]
    file = DataFile(Path(settings.path), DataLayout(**settings.layout))
    keeper = Keeper(slabs, file, settings.keep, settings.seed)
    serve_counts(
        settings.metrics_port,
        "keeper",
        {},
        lambda: {
            "kept_bytes": float(keeper.n_bytes),
            "kept_steps": float(keeper.n_steps),
            "left_out_segments": float(keeper.n_left_out),
        },
    )
    due_s = 0.0
    while True:
        last = leaving or Path(settings.finish).exists()
        n = keeper.turn()
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + ENDINGS_S
            keeper.note_endings()
        if last:
            break
        time.sleep(keeper.pause_s(n))
    keeper.note_endings()
    file.close()


def main() -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    settings = KeeperSettings.load(parser.parse_args().settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    die_with_parent(signal.SIGTERM)
    try:
        serve(settings)
    except OSError as error:
        room = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Mend it"
        print(f"The data set {settings.path} cannot be written: {error}. {room}, or lower `keep`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

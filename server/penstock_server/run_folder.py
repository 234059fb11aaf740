"""Where a run's files are: on disk under runs/<name>/<id>/, and in memory under /dev/shm."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = "penstock-"
HELD = "run"  # a file in the scratch folder, locked while its supervisor lives
ROOM_BYTES = 65_536  # a disk with less than that is full: a page of the database needs 4 kB
# What a disk answers when it cannot be written, a network file system's among them.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


class RunFolderError(RuntimeError):
    """The folder cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; `scratch` is in memory and goes away with the run."""

    root: Path
    scratch: Path

    @property
    def identity(self) -> str:
        return self.root.name

    @property
    def campaign_number(self) -> int:
        """What the wire calls the campaign; differs between runs."""
        digest = hashlib.sha256(str(self.root).encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1

    @property
    def campaign(self) -> Path:
        return self.root / "campaign.toml"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def ledgers(self) -> Path:
        """What the shards' ledgers said at the end."""
        return self.root / "ledgers"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def best(self) -> Path:
        """The model with the least validation error."""
        return self.root / "best"

    @property
    def data(self) -> Path:
        """The data set, if one is written."""
        return self.root / "data.h5"

    @property
    def keeper_finish(self) -> Path:
        """Tells the keeper that nothing more will come."""
        return self.scratch / "keeper-finish"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def history(self) -> Path:
        return self.root / "history.csv"

    @property
    def settings(self) -> Path:
        return self.root / "settings"

    @property
    def snapshots(self) -> Path:
        return self.scratch / "snapshots"

    @property
    def keys(self) -> Path:
        """In memory, and so on no disk, and new whenever the run is resumed."""
        return self.scratch / "keys"

    def shard(self, name: str) -> Path:
        return self.scratch / f"shard-{name}"

    def lock(self) -> IO[str]:
        """Held while a supervisor runs this folder; says who holds it.

        Raises RunFolderError when another one does, or when nobody can.
        """
        try:
            file = (self.root / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(self.disk_trouble(error) or f"{self.root}: {error}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise RunFolderError(
                f"The run {self.root} is in use by another supervisor"
                f"{f' ({holder})' if holder else ''}. Wait for it, stop it, or start a new run."
            ) from error
        except OSError as error:
            file.close()
            raise RunFolderError(
                f"The file system of {self.root} has no locks ({error.strerror}), so that nothing "
                "would keep two supervisors apart. Have it mounted with them (Lustre: -o flock; "
                "NFS: without nolock), or keep runs elsewhere with --runs."
            ) from error
        with contextlib.suppress(OSError):  # a full disk; the lock holds without a name in it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        return file

    def disk_trouble(self, error: OSError | None = None) -> str:
        """A sentence if the folder's disk cannot be written, else nothing.

        error: what somebody met who tried; None: what the disk says of itself.
        """
        number = self._disk_error() if error is None else error.errno
        if number not in DISK_ERRORS:
            return ""
        return (
            f"The disk of the run folder {self.root} cannot be written: {os.strerror(number)}. "
            "What its checkpoints hold is kept: when there is room again, go on with "
            f"penstock run --resume {self.root}"
        )

    def _disk_error(self) -> int:
        try:
            disk = os.statvfs(self.root)
        except OSError as error:
            return error.errno or 0
        if disk.f_flag & os.ST_RDONLY:
            return errno.EROFS
        return errno.ENOSPC if disk.f_bavail * disk.f_frsize < ROOM_BYTES else 0

    @property
    def running(self) -> bool:
        """Whether a supervisor holds the lock."""
        try:
            with (self.root / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def make_scratch(self) -> IO[str]:
        """An empty folder in memory; call it with the lock held.

        The file that is returned holds a lock of its own until it is closed: memory can be shared
        with machines (containers) that don't see our disk, and this is what they can look at.
        """
        self.clear_scratch()
        _sweep(self.scratch.parent)
        part = self.scratch.with_name(f".{self.scratch.name}")  # a name that nobody sweeps
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        held = (part / HELD).open("w", encoding="utf-8")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.write(str(self.root))
        held.flush()
        part.rename(self.scratch)
        self.snapshots.mkdir()
        return held

    def remove_model(self) -> None:
        """Takes away the model of an earlier session of this run; the best one stands."""
        shutil.rmtree(self.model, ignore_errors=True)

    def remove_ledgers(self) -> None:
        """Takes away those of an earlier session of this run, which goes on from a checkpoint."""
        shutil.rmtree(self.ledgers, ignore_errors=True)

    def clear_shard(self, name: str) -> None:
        """Gives back the memory of one shard, whose receiver is gone for good."""
        shutil.rmtree(self.shard(name), ignore_errors=True)

    def clear_scratch(self) -> None:
        """Gives the memory back; may be called twice."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def create(runs: Path, name: str) -> RunFolder:
    """A new run of a campaign; raises RunFolderError when the disk does not let us."""
    identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    root = (runs / name / identity).resolve()
    folder = _folder(root)
    try:
        for path in (root, folder.logs, folder.settings, folder.checkpoints):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"The run folder {root} cannot be made: {error.strerror}. Choose another with --runs."
        ) from error
    return folder


def reopen(root: Path) -> RunFolder:
    """An earlier run, for --resume; raises RunFolderError when it is none."""
    folder = _folder(root.resolve())
    if not folder.campaign.is_file():
        raise RunFolderError(
            f"{root} is not a run: it has no campaign.toml. Give a folder such as runs/NAME/ID."
        )
    return folder


def _folder(root: Path) -> RunFolder:
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else root
    key = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return RunFolder(root, memory / f"{PREFIX}{key}")


def _sweep(memory: Path) -> None:
    """Gives back the memory of runs whose supervisor was killed: nobody holds it any more."""
    for scratch in memory.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (scratch / HELD).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(scratch, ignore_errors=True)

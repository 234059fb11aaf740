"""Durable checkpoints: a snapshot and the ledgers of the feeds, copied to a disk by a thread.

Each is a folder with a manifest of SHA-256 digests, renamed only after everything is synced. A
torn or altered one is recognised and the one before it is used. The trainer calls it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from penstock_server import past_the_cache
from penstock_server.snapshot import Snapshot

PREFIX = "checkpoint-"
PART = ".part"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One that stands; `snapshot` is read as any other snapshot."""

    folder: Path
    batch: int

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.folder / "snapshot", self.batch)

    @property
    def ledgers(self) -> Path:
        """The folder with what each feed exported."""
        return self.folder / "ledgers"


def standing(root: Path) -> list[Checkpoint]:
    """All checkpoints in `root`, oldest first, intact or not."""
    folders = sorted(root.glob(f"{PREFIX}*")) if root.is_dir() else []
    return [
        Checkpoint(folder, int(folder.name.removeprefix(PREFIX)))
        for folder in folders
        if folder.name.removeprefix(PREFIX).isdigit()
    ]


def newest_intact(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose every byte is as it was written."""
    return next((c for c in reversed(standing(root)) if not faults(c)), None)


def faults(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with a checkpoint, in sentences; none if it is intact."""
    folder = checkpoint.folder
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{folder / MANIFEST} cannot be read: {error}."]
    found = []
    for name, digest in manifest.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path} is missing.")
        elif _digest(path) != digest:
            found.append(f"{path} is not what was written: its SHA-256 differs.")
    return found


class CheckpointWriter:
    """Of one campaign. Every rank has one for `ledgers`; the first rank also writes."""

    def __init__(self, root: Path, keep: int) -> None:
        self.root = root
        self.keep = keep
        self.durable: int | None = None  # batch of the newest that this writer finished
        self.error = ""  # why the last one failed, in a sentence
        self.copying: int | None = None  # batch of the snapshot that must stay for now
        self._thread: threading.Thread | None = None

    def clear(self) -> None:
        """Remove what a killed writer left half-written; before the first round, by one rank."""
        for part in self.root.glob(f"{PREFIX}*{PART}"):
            shutil.rmtree(part, ignore_errors=True)

    def ledgers(self, batch: int) -> Path:
        """The folder into which every feed exports its ledger before `commit`."""
        folder = self._part(batch) / "ledgers"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def commit(self, snapshot: Snapshot) -> None:
        """Copy the snapshot beside the ledgers and make both durable, in a thread."""
        self.wait()
        self.copying = snapshot.batch
        self._thread = threading.Thread(
            target=self._write, args=(snapshot,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written; may be called at any time."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _part(self, batch: int) -> Path:
        return self.root / f"{PREFIX}{batch:09d}{PART}"

    def _write(self, snapshot: Snapshot) -> None:
        part = self._part(snapshot.batch)
        try:
            part.mkdir(parents=True, exist_ok=True)
            digests = {
                str(path.relative_to(part)): _digest(path)
                for path in sorted(part.rglob("*"))
                if path.is_file()
            }
            digests.update(_copy_tree(snapshot.folder, part, "snapshot"))
            manifest = {"batch": snapshot.batch, "sha256": digests}
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            for path in part.rglob("*"):
                _sync(path)
            _sync(part)
            folder = part.with_name(part.name.removesuffix(PART))
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
            _sync(self.root)
            for old in standing(self.root)[: -self.keep]:
                shutil.rmtree(old.folder, ignore_errors=True)
            self.durable, self.error = snapshot.batch, ""
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            self.error = (
                f"The checkpoint of batch {snapshot.batch} could not be written to {self.root}: "
                f"{error.strerror or error}. Training goes on; the one before it still stands."
            )
        finally:
            self.copying = None


def _copy_tree(source: Path, part: Path, name: str) -> dict[str, str]:
    """Copies a folder into `part` under a name; gives the digests by path within `part`."""
    digests = {}
    for path in sorted(source.rglob("*")):
        target = part / name / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            digests[str(target.relative_to(part))] = past_the_cache.copy(path, target)
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Through to the disk: a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

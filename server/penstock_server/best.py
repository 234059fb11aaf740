"""The network with the least validation error so far, kept as RUN/best/; the validator calls it.

Beside the model stands `standing.json`, so that a validator that was started again, or a resumed
run, goes on from the same best.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock_server.json_file import write_json

STANDING = "standing.json"


@dataclass(frozen=True)
class Standing:
    """What the best network is; errors compare only on the same number of simulations."""

    batch: int
    value: float  # validation error
    simulations: int  # that it was judged on

    def to_dict(self) -> dict[str, Any]:
        """As reports take it."""
        return {"batch": self.batch, "value": self.value}


class Best:
    """Owns the folder; nobody else writes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._old = folder.with_name(f"{folder.name}.old")
        if self._old.is_dir() and not folder.exists():  # killed between two renames
            self._old.rename(folder)
        self.standing = _read(folder)

    def offer(self, model: Path, candidate: Standing) -> bool:
        """Keep the model if it is better than the one that stands; whether it was.

        Raises FileNotFoundError when the model has gone meanwhile; the old best stands then.
        """
        if not math.isfinite(candidate.value):  # a network that has diverged
            return False
        best = self.standing.value if self.standing is not None else math.inf
        if math.isfinite(best) and candidate.value >= best:
            return False
        part = self.folder.with_name(f"{self.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(model, part, copy_function=shutil.copyfile)
        write_json(part / STANDING, asdict(candidate))
        self._replace(part)
        self.standing = candidate
        return True

    def rejudge(self, standing: Standing) -> None:
        """The same network, judged on other simulations than before."""
        self.standing = standing
        write_json(self.folder / STANDING, asdict(standing))

    def _replace(self, part: Path) -> None:
        """A folder cannot replace one: between two renames there is none, never half of one."""
        shutil.rmtree(self._old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.folder.rename(self._old)
        part.rename(self.folder)
        shutil.rmtree(self._old, ignore_errors=True)


@contextmanager
def held(model: Path, root: Path) -> Iterator[Path]:
    """The model of a snapshot as it is now, also when the trainer prunes the snapshot meanwhile.

    Hard links below `root`, on the same memory as the snapshots, so it costs none. Raises
    FileNotFoundError when the snapshot is gone already.
    """
    folder = root / "checked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for path in sorted(model.iterdir()):
            _link(path, folder / path.name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _read(folder: Path) -> Standing | None:
    if not (folder / "model.json").is_file():
        return None
    try:
        return Standing(**json.loads((folder / STANDING).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or none that can be trusted
        return None

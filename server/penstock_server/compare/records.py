"""What a comparison has finished, one JSON a result, so that it can go on after any interruption.

`study` keeps them in the folder of the comparison:

    comparison.json    what is compared; another comparison in the same folder is refused
    records/NAME.json  a finished run, a chosen setting, the figures on test simulations
    lock               held while a process works here
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock_server.compare.errors import CompareError
from penstock_server.json_file import write_json


class Records:
    """The results in a folder; each is written once, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> dict[str, Any] | None:
        """A record, or None if there is none yet."""
        path = self._path(name)
        if not path.is_file():
            return None
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return values

    def put(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a record and gives it as `get` will."""
        self._path(name).parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path(name), values)
        written = self.get(name)
        assert written is not None
        return written

    def claim(self, about: Mapping[str, Any]) -> None:
        """Says what is compared here. Raises CompareError if it was something else before."""
        path = self.folder / "comparison.json"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, about)
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        found = differences(before, json.loads(json.dumps(about)))
        if found:
            raise CompareError(
                f"{self.folder} holds a comparison with other settings: {'; '.join(found)}. "
                "Take the old ones, or another folder with --out."
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Raises CompareError while another process works in the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w")
        except OSError as error:
            raise CompareError(
                f"The folder {self.folder} cannot be used: {error.strerror}. Choose another with "
                "--out."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CompareError(
                    f"Another comparison works in {self.folder}. Wait for it, stop it, or choose "
                    "another folder with --out."
                ) from error
            yield

    def _path(self, name: str) -> Path:
        return self.folder / "records" / f"{name}.json"


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """What differs, a phrase a value: "training.batch_size was 10 and is 20"."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            phrase
            for name in sorted({*before, *now})
            for phrase in differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == now else [f"{key} was {_word(before)} and is {_word(now)}"]


def _word(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)

"""What happened, in four numbered streams, for the display and the report; part of the state."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from penstock_server.coordinator.records import Changes, Entry
from penstock_server.coordinator.requests import NotAccepted

FAULTS, EVENTS, PROGRESS, VALIDATED = STREAMS = ("faults", "events", "progress", "validated")
KEPT = 1_000  # entries of a stream in memory; the database has all
PAGE_BYTES = 100_000  # of one stream in one answer, so that it stays below 1 MiB
NUMBERS_BYTES = 50  # of an entry: its serial and seconds, with their names
NEWEST = 20  # entries of a stream for one who does not say from where


class _Line(NamedTuple):
    """An entry in memory; as text it takes a sixth of what the body does as objects."""

    serial: int
    seconds: float
    text: str  # JSON

    @classmethod
    def of(cls, entry: Entry) -> _Line:
        return cls(entry.serial, entry.seconds, json.dumps(entry.body, default=str))

    def shown(self) -> dict[str, Any]:
        return {"serial": self.serial, "seconds": self.seconds, **json.loads(self.text)}


class Journal:
    """Append-only; `entries` are what an earlier process wrote, in the order of their serials."""

    def __init__(self, changes: Changes, entries: Iterable[Entry] = ()) -> None:
        self._changes = changes
        self._streams: dict[str, deque[_Line]] = {name: deque(maxlen=KEPT) for name in STREAMS}
        self.seconds = 0.0  # of the campaign, as the newest entry has it
        for entry in entries:
            self._streams[entry.stream].append(_Line.of(entry))
            self.seconds = max(self.seconds, entry.seconds)

    def note(self, stream: str, body: dict[str, Any]) -> None:
        """Raises NotAccepted when the body is too large to be shown again."""
        entry = Entry(stream, self.count(stream), round(self.seconds, 3), body)
        line = _Line.of(entry)
        if len(line.text) > PAGE_BYTES:
            raise NotAccepted(
                f"An entry of {stream!r} may have at most {PAGE_BYTES} bytes of JSON, and "
                f"{len(line.text)} came. Write large things to a file and send its path."
            )
        self._streams[stream].append(line)
        self._changes.add(entry)

    def count(self, stream: str) -> int:
        """How many entries the stream has ever had; the serial of the next one."""
        lines = self._streams[stream]
        return lines[-1].serial + 1 if lines else 0

    def newest(self, stream: str) -> dict[str, Any] | None:
        lines = self._streams[stream]
        return json.loads(lines[-1].text) if lines else None

    def page(self, stream: str, since: int | None) -> list[dict[str, Any]]:
        """Entries from serial `since` on, as many as fit; each with its serial and seconds."""
        lines = self._streams[stream]
        if not lines:
            return []
        start = self.count(stream) - NEWEST if since is None else since
        page: list[dict[str, Any]] = []
        size = 0
        for index in range(max(0, start - lines[0].serial), len(lines)):
            size += len(lines[index].text) + NUMBERS_BYTES
            if page and size > PAGE_BYTES:
                break
            page.append(lines[index].shown())
        return page

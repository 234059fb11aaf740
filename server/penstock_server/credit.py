"""Credit: which segments the producers of a shard may send, each with a slot kept for it.

Granted ordinals only grow and are noted in the ledger, so that a restarted receiver honours them.
Owned by the shard.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from penstock_server.ledger import Ledger
from penstock_server.reservoir import Reservoir
from penstock_server.streams import Stream

MOST_AHEAD = 256  # segments of a stream, or
SHARE_AHEAD = 1 / 32  # of all slots, where that is more: small steps come quickly


class Credit:
    """The reservations of all streams of a shard."""

    def __init__(
        self,
        streams: Mapping[int, Stream],
        delivered: Collection[int],
        ledger: Ledger,
        reservoir: Reservoir,
        segment_steps: int,
        max_steps: int,
        needs_row: bool,
    ) -> None:
        self.held = False  # the trainer is behind: no more credit
        self.reserved = 0  # slots, of all streams
        self._streams, self._delivered = streams, delivered
        self._ledger, self._reservoir = ledger, reservoir
        self._segment_steps, self._max_steps = segment_steps, max_steps
        self._needs_row = needs_row  # a stream without a row for its input fields waits
        self._turn = 0

    def grant(self) -> list[Stream]:
        """Extends credit round-robin as far as slots can be reserved; returns who got more.

        Only to streams whose parts are all here and cover their fields: so no part can be through
        with a simulation, and silent after a restart, whose layout was never noted.
        """
        if self.held:
            return []
        wanting = [s for s in self._streams.values() if s.live and s.covered and self._has_row(s)]
        if not wanting:
            return []
        ahead = self._ahead(len([s for s in wanting if s.simulation not in self._delivered]))
        gained: dict[int, Stream] = {}
        if self._available() >= sum(ahead - min(ahead, s.reserved) for s in wanting):
            for stream in wanting:
                if self._grant_many(stream, ahead - stream.reserved):
                    gained[stream.simulation] = stream
        self._turn = (self._turn + 1) % len(wanting)
        queue = wanting[self._turn :] + wanting[: self._turn]
        while queue:
            rest = []
            for stream in queue:
                if self._grant_one(stream, ahead):
                    gained[stream.simulation] = stream
                    rest.append(stream)
            queue = rest
        for stream in gained.values():  # before the client hears of it
            self._ledger.grant(stream.simulation, stream.granted)
        return list(gained.values())

    def waits(self, stream: Stream) -> bool:
        """Whether the stream can send nothing more until it is granted."""
        idle = not (stream.reserved or stream.open)
        return stream.live and stream.covered > 0 and idle and self._more(stream)

    @property
    def blocked(self) -> bool:
        """Whether there are producers, and every one of them waits for credit."""
        if self._available() or self._reservoir.n_unkept:  # the keeper frees slots soon
            return False
        producers = [s for s in self._streams.values() if s.live and self._produces(s)]
        return bool(producers) and all(self.waits(s) for s in producers)

    @property
    def pressure(self) -> bool:
        """Whether some producer waits and a snapshot would free slots."""
        if self._available() or not self._reservoir.n_fresh:
            return False
        return any(s.live and not s.reserved and self._more(s) for s in self._streams.values())

    def _available(self) -> int:
        return max(0, self._reservoir.n_available - self.reserved)

    def _produces(self, stream: Stream) -> bool:
        """Not one that waits for its own parts, or has sent all that is known of it."""
        return bool(stream.open or stream.reserved or (stream.covered and self._more(stream)))

    def _has_row(self, stream: Stream) -> bool:
        return stream.row is not None or not self._needs_row

    def _ahead(self, n_live: int) -> int:
        n_slots = self._reservoir.n_slots
        most = max(MOST_AHEAD, int(SHARE_AHEAD * n_slots))
        return max(1, min(most, n_slots // (2 * max(1, n_live))))

    def _more(self, stream: Stream) -> bool:
        """Whether the stream has segments, as far as is known, that it was not granted yet."""
        return not self.beyond(stream, stream.segment(stream.granted))

    def beyond(self, stream: Stream, segment: int) -> bool:
        """Whether the simulation is known to have no such segment."""
        return segment * self._segment_steps >= self._n_steps(stream)

    def _n_steps(self, stream: Stream) -> int:
        return self._max_steps if stream.n_steps is None else stream.n_steps

    def _grant_one(self, stream: Stream, ahead: int) -> bool:
        if not self._more(stream):
            return False
        segment = stream.segment(stream.granted)
        if self._ledger.admitted(stream.simulation, segment) or segment in stream.open:
            stream.granted += 1  # a repeat needs no slot
            return True
        if stream.reserved >= ahead or not self._available():
            return False
        stream.reserved_ordinals.add(stream.granted)
        stream.granted += 1
        stream.reserved += 1
        self.reserved += 1
        return True

    def _grant_many(self, stream: Stream, n: int) -> bool:
        """At once where nobody competes; False: to be done one by one."""
        first = stream.granted
        n = min(n, stream.n_segments(self._n_steps(stream), self._segment_steps) - first)
        if n <= 0:
            return False
        begin, end = stream.segment(first), stream.segment(first + n - 1)
        repeats = any(segment >= begin for segment in stream.open)
        if repeats or not self._ledger.none_admitted(stream.simulation, begin, end):
            return False
        stream.reserved_ordinals.update(range(first, first + n))
        stream.granted += n
        stream.reserved += n
        self.reserved += n
        return True

    def use_all(self, stream: Stream, ordinals: Collection[int]) -> None:
        """As `use`, for ordinals each of which has a slot kept for it."""
        stream.reserved_ordinals.difference_update(ordinals)
        stream.reserved -= len(ordinals)
        self.reserved -= len(ordinals)

    def use(self, stream: Stream, ordinal: int) -> bool:
        """A slot that was kept is about to be taken; False when none was kept for this segment."""
        if ordinal not in stream.reserved_ordinals:
            return False
        stream.reserved_ordinals.discard(ordinal)
        stream.reserved -= 1
        self.reserved -= 1
        return True

    def renew(self, stream: Stream, ordinals: set[int]) -> None:
        """Keeps slots again for what was granted before a restart."""
        stream.reserved_ordinals = ordinals
        stream.reserved = len(ordinals)
        self.reserved += stream.reserved

    def release(self, stream: Stream) -> None:
        """Gives back every slot that is kept for the stream."""
        self.reserved -= stream.reserved
        stream.reserved = 0
        self._ledger.close(stream.simulation)
        stream.reserved_ordinals.clear()

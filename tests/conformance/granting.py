"""How much of each lease a scripted shard grants, and which it refuses; owned by the shard."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from scenarios import Scenario

from penstock import wire
from penstock.wire import Header, Kind

Stored = Mapping[tuple[int, int, int], list[bytes]]  # lease, step, part -> payloads


class Granting:
    """Looks at what the shard has stored; says what is new."""

    def __init__(self, scenario: Scenario, stored: Stored, parts: Collection[int]) -> None:
        self.granted: dict[int, int] = {}  # lease -> segments
        self.opened: dict[int, set[int]] = {}  # lease -> parts that sent OPEN
        self._scenario, self._faults = scenario, scenario.faults
        self._stored, self._parts = stored, parts
        self._length = int(scenario.stream.get("segment_steps", 1))
        self._hold_until: dict[int, float] = {}
        self._refused: set[int] = set()

    @property
    def holds(self) -> bool:
        """Whether something is withheld."""
        return bool(self._hold_until)

    def of(self, leases: Collection[int]) -> list[tuple[int, int]]:
        """(lease, segments) of those of the leases that were granted any."""
        return [(lease, n) for lease, n in self.granted.items() if lease in leases]

    def tick(self, now: float) -> bool:
        """Grants what was withheld, when its time has come; whether there is news."""
        ready = [lease for lease, until in self._hold_until.items() if now >= until]
        for lease in ready:
            del self._hold_until[lease]
            self.granted[lease] += 1
        return bool(ready)

    def grant(self, now: float) -> bool:
        """Grants what is due; whether there is news."""
        news = False
        for lease, parts in self.opened.items():
            if len(parts) < len(self._parts):
                continue
            due = self._endless_or_short(lease)
            if self._faults.hold_s:
                due += self._complete(lease)
            if due <= self.granted.get(lease, 0):
                continue
            if self.granted.get(lease):
                self._hold_until.setdefault(lease, now + self._faults.hold_s)
            else:
                self.granted[lease] = due
                news = True
        return news

    def refusal(self, header: Header) -> list[bytes] | None:
        """REFUSED, if this message is the one that its lease is refused for; once a lease."""
        step, reason = self._faults.refuse.get(header.lease, (None, ""))
        came = header.step if header.kind == Kind.PART else 0
        if header.kind == Kind.BUNCH:
            came = max((key[1] for key in self._stored if key[0] == header.lease), default=0)
        if step is None or came < step or header.kind not in (Kind.PART, Kind.BUNCH):
            return None
        if header.lease in self._refused:
            return None
        self._refused.add(header.lease)
        refusal = Header(Kind.REFUSED, self._scenario.campaign, header.simulation, header.lease)
        return [bytes(wire.encode(refusal)), reason.encode()]

    def _endless_or_short(self, lease: int) -> int:
        """A lease that is to be refused has credit for little more: else it may end before."""
        if lease not in self._faults.refuse or self._faults.refuse_parts is not None:
            return self._faults.credit
        length = self._length * self._scenario.shards
        return -(-(self._faults.refuse[lease][0] + 2) // length)

    def _complete(self, lease: int) -> int:
        """Segments of the lease of which every step came from every part."""
        came = {step for of, step, _ in self._stored if of == lease}
        full = {s for s in came if all((lease, s, p) in self._stored for p in self._parts)}
        return sum(
            all(segment * self._length + i in full for i in range(self._length))
            for segment in {step // self._length for step in full}
        )

"""A small reservoir with producers, enough to see whether rounds of training ever stop."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from penstock_server.rounds import Limits, Round, State, Tally, decide


@dataclass
class Stock:
    admitted: int = 0
    stored: int = 0
    unseen: int = 0
    ready: int = 0
    fresh: int = 0
    complete_simulations: int = 0
    blocked: bool = False
    pressure: bool = False
    over: bool = False


@dataclass
class Shard:
    """Slots of `windows` samples; a sample holds the batch of its first draw, 0 if unseen."""

    slots: int
    windows: int
    batch_size: int
    chance: random.Random
    held: list[list[int]] = field(default_factory=list)
    admitted: int = 0
    drawn: int = 0
    safe: int = 0
    unseen_only: bool = False
    hold: bool = False
    promised: list[tuple[list[int], int]] = field(default_factory=list)

    def has_room(self) -> bool:
        return not self.hold and (len(self.held) < self.slots or bool(self._evictable()))

    def put(self) -> None:
        if len(self.held) == self.slots:
            self.held.remove(self.chance.choice(self._evictable()))
        self.held.append([0] * self.windows)
        self.admitted += self.windows

    def stock(self, live: bool, over: bool) -> Stock:
        if not self.promised:
            self._promise(urgent=live and not self.has_room(), unseen=self.unseen_only)
        unseen = sum(b == 0 for slot in self.held for b in slot)
        fresh = sum(slot[w] == 0 for slot, w in self.promised)
        late = any(all(slot) and max(slot) > self.safe for slot in self.held)
        return Stock(
            admitted=self.admitted,
            stored=len(self.held) * self.windows,
            unseen=unseen,
            ready=len(self.promised),
            fresh=fresh,
            complete_simulations=1,
            blocked=live and not self.has_room(),
            pressure=live and not self.has_room() and late,
            over=over,
        )

    def take(self, batch: int) -> None:
        for slot, window in self.promised:
            slot[window] = slot[window] or batch
        self.drawn += len(self.promised)
        self.promised = []

    def drain(self) -> None:
        self.unseen_only, self.promised = True, []

    def skip(self, batch: int) -> None:
        pass

    def redraw(self) -> None:
        unseen = sum(b == 0 for slot in self.held for b in slot)
        enough = unseen >= self.batch_size or (unseen > 0 and not self.has_room())
        if any(slot[w] for slot, w in self.promised) and enough:
            self._promise(urgent=False, unseen=True)

    def _promise(self, urgent: bool, unseen: bool) -> None:
        every = [(slot, w) for slot in self.held for w in range(self.windows)]
        new = [(slot, w) for slot, w in every if slot[w] == 0]
        unseen_first = 2 * len(new) > len(every) or (urgent and len(new) >= self.batch_size)
        pool = new if unseen or unseen_first else every
        self.promised = self.chance.sample(pool, min(self.batch_size, len(pool)))

    def _evictable(self) -> list[list[int]]:
        pinned = {id(slot) for slot, _ in self.promised}
        return [
            slot
            for slot in self.held
            if all(slot) and max(slot) <= self.safe and id(slot) not in pinned
        ]


@dataclass
class World:
    """`workers` simulations at a time, each of `segments`, spread over all shards in turn."""

    limits: Limits
    shards: list[Shard]
    simulations: int
    segments: int
    workers: int
    speed: int  # segments per round, all workers together
    seconds_a_round: float = 0.01
    state: State = field(default_factory=State)
    seconds: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    highest: float = 0.0  # of draws - ratio x admissions
    lowest: float = 0.0

    def run(self, most_rounds: int) -> Round:
        """Until the rounds finish; fails after most_rounds."""
        waiting = list(range(self.simulations))
        running: list[list[int]] = []  # [simulation, next segment]
        snapshot = -1
        while len(self.rounds) < most_rounds:
            while waiting and len(running) < self.workers:
                running.append([waiting.pop(0), 0])
            self._produce(running)
            running = [each for each in running if each[1] < self.segments]
            over = not running and not waiting
            stocks = [s.stock(live=not over, over=over) for s in self.shards]
            tallies = [
                Tally.of(stock, self.limits.batch_size, shard.drawn)
                for stock, shard in zip(stocks, self.shards, strict=True)
            ]
            tallies[0] = replace(tallies[0], seconds=self.seconds, snapshot=snapshot + 1)
            total = sum(tallies, Tally())
            for shard in self.shards:
                shard.safe = max(shard.safe, snapshot)
            self.state, chosen = decide(self.state, total, self.limits)
            self.rounds.append(chosen)
            if chosen.snapshot:
                snapshot = chosen.after
            if chosen.action == "finish":
                return chosen
            for shard, mine in zip(self.shards, tallies, strict=True):
                self._follow(shard, chosen, mine)
            self.seconds += self.seconds_a_round * (5 if chosen.action == "wait" else 1)
            self._measure()
        raise AssertionError(
            f"Still {self.rounds[-1]} after {most_rounds} rounds: {total}, {self.state}"
        )

    def _follow(self, shard: Shard, chosen: Round, mine: Tally) -> None:
        shard.hold = chosen.hold
        if chosen.action == "drain":
            shard.drain()
        half = 2 * mine.unseen > mine.stored
        if chosen.action == "wait" and chosen.why == "limiter" and (half or mine.blocked):
            shard.redraw()
        if chosen.count(mine):
            shard.take(chosen.after + 1)

    def _produce(self, running: list[list[int]]) -> None:
        for _ in range(self.speed):
            ready = [
                each for each in running if each[1] < self.segments and self._shard(each).has_room()
            ]
            if not ready:
                return
            chosen = self.shards[0].chance.choice(ready)
            self._shard(chosen).put()
            chosen[1] += 1

    def _shard(self, running: list[int]) -> Shard:
        simulation, segment = running
        return self.shards[(simulation + segment) % len(self.shards)]

    def _measure(self) -> None:
        if self.limits.draws_per_sample is None:
            return
        drawn = sum(s.drawn for s in self.shards)
        admitted = sum(s.admitted for s in self.shards)
        lead = drawn - self.limits.draws_per_sample * admitted
        self.highest, self.lowest = max(self.highest, lead), min(self.lowest, lead)

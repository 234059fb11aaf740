"""Which samples of a shard are drawn and which slots are given up; values and rules without I/O.

A policy is a draw rule and a free rule on one set of books. Samples have flat ids
`slot * windows + start`. put and choose are O(1) a sample. Owned by the shard.

Sources: reservoir, FIFO and FIRO as in Meyer et al., "High Throughput Training of Deep Surrogates
from Large Ensemble Runs" (SC 2023), with eviction held back until a snapshot covers the draw.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Population:
    """A set of ids below `size` with uniform choice; add, discard and membership in O(1)."""

    def __init__(self, size: int) -> None:
        self._ids = np.zeros(size, dtype=np.int64)
        self._positions = np.full(size, -1, dtype=np.int64)
        # The same memory; scalars cost a third of numpy's.
        self._id, self._position = self._ids.data, self._positions.data
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __contains__(self, item: int) -> bool:
        return self._position[item] >= 0

    def add(self, item: int) -> None:
        if self._position[item] < 0:
            self._id[self._n] = item
            self._position[item] = self._n
            self._n += 1

    def add_all(self, items: Ids) -> None:
        """As `add`, for different ids of which none is in the set."""
        n, self._n = self._n, self._n + len(items)
        self._ids[n : self._n] = items
        self._positions[items] = np.arange(n, self._n)

    def discard(self, item: int) -> None:
        at = self._position[item]
        if at >= 0:
            self._n -= 1
            last = self._id[self._n]
            self._id[at] = last
            self._position[last] = at
            self._position[item] = -1

    def choose(self, k: int, rng: np.random.Generator) -> Ids:
        """k different ids, uniformly; fewer when there are fewer."""
        k = min(k, self._n)
        if k == 0:
            return np.empty(0, dtype=np.int64)
        return self._ids[rng.choice(self._n, size=k, replace=False, shuffle=False)]

    def all(self) -> Ids:
        return self._ids[: self._n].copy()


class Reservoir:
    """The books of a shard: what is stored, unseen, promised to a batch, and may be evicted.

    `drawn` (slots, windows) is the slab's array: the batch of the first draw of a sample, 0 while
    it is unseen. Nothing here copies a field.
    """

    def __init__(
        self, policy: str, drawn: npt.NDArray[Any], rng: np.random.Generator, keeper: bool = False
    ) -> None:
        """keeper: nothing is evicted before `keep` says that it is stored."""
        if policy not in POLICIES:
            raise ValueError(f"There is no policy {policy!r}; there are {', '.join(POLICIES)}.")
        self.policy = policy
        self._rng = rng
        self._drawn = drawn
        self.n_slots: int = drawn.shape[0]
        self.windows: int = drawn.shape[1]
        n_samples = self.n_slots * self.windows
        self.stored = Population(n_samples)
        self.unseen = Population(n_samples)
        self.evictable = Population(self.n_slots)
        self.free: list[int] = list(range(self.n_slots - 1, -1, -1))
        self._held = np.zeros(self.n_slots, dtype=np.int64)  # windows of the slot in use
        self._left = np.zeros(self.n_slots, dtype=np.int64)  # of these, not yet drawn
        self._pins = np.zeros(self.n_slots, dtype=np.int64)
        self.n_undrawn = 0  # samples in store that no batch has had, promised ones included
        self._fresh: deque[tuple[int, int]] = deque()  # (batch, slot): seen, no snapshot yet
        self._kept = 0 if keeper else None  # the newest ordinal that is stored
        self._unkept: list[tuple[int, int]] = []  # heap of (ordinal, slot): safe, not yet stored
        self._ordinals = np.zeros(self.n_slots, dtype=np.int64)
        self._queue: deque[int] = deque()  # fifo: samples by admission
        self._arrival = np.zeros(self.n_slots, dtype=np.int64)
        self._arrived = 0
        self._order: deque[int] = deque()  # fifo: evictable slots by the end of their draws

    # -- slots -----------------------------------------------------------------------------------

    @property
    def n_available(self) -> int:
        """Slots that are free or could be evicted now."""
        return len(self.free) + len(self.evictable)

    @property
    def n_fresh(self) -> int:
        """Slots that a snapshot would make evictable."""
        return len(self._fresh)

    @property
    def n_unkept(self) -> int:
        """Slots that wait for the keeper alone."""
        return len(self._unkept)

    def acquire(self) -> tuple[int, bool]:
        """A slot to write to, and whether it was evicted; the caller has reserved one.

        The caller also clears its draws, as soon as the slab says that the old content is gone.
        """
        if self.free:
            return self.free.pop(), False
        slot = self._choose_evicted()
        self._remove(slot)
        return slot, True

    def release(self, slot: int) -> None:
        """Gives back a slot that was acquired or put."""
        self._remove(slot)
        self.free.append(slot)

    def put(self, slot: int, n_windows: int, ordinal: int = 0) -> None:
        """A committed slot with its number of samples; drawn marks in the slab count."""
        self._ordinals[slot] = ordinal
        if self.policy == "store":
            self._let_go(slot)
            return
        self._arrived += 1
        self._arrival[slot] = self._arrived
        self._held[slot] = n_windows
        drawn = self._drawn[slot, :n_windows].tolist()
        left = drawn.count(0)
        self._left[slot] = left
        self.n_undrawn += left
        for sample, batch in enumerate(drawn, slot * self.windows):
            self.stored.add(sample)
            if batch == 0:
                self._unsee(sample)
        if left == 0:
            self._fresh.append((max(drawn, default=0), slot))

    def put_all(self, slots: list[int], ordinals: list[int]) -> None:
        """As `put`, for slots of one sample each that nobody has drawn."""
        if self.policy == "store":
            for slot, ordinal in zip(slots, ordinals):
                self.put(slot, 1, ordinal)
            return
        samples, n = np.array(slots), len(slots)
        self._ordinals[samples] = ordinals
        self._arrival[samples] = np.arange(self._arrived + 1, self._arrived + n + 1)
        self._arrived += n
        self._held[samples] = self._left[samples] = 1
        self.n_undrawn += n
        self.stored.add_all(samples)
        self.unseen.add_all(samples)
        if self.policy == "fifo":
            self._queue.extend(slots)

    # -- draws -----------------------------------------------------------------------------------

    def choose(self, k: int, unseen_only: bool = False, urgent: bool = False) -> Ids:
        """The next batch: up to k different samples, promised until `confirm` or `cancel`.

        urgent: producers wait and nothing can be evicted, so unseen samples go first.
        """
        if self.policy in ("keep", "store"):
            return np.empty(0, dtype=np.int64)
        if self.policy == "fifo":
            chosen = self._oldest(k)
        elif (
            self.policy == "firo"
            or unseen_only
            or (urgent and len(self.unseen) >= k)
            or 2 * len(self.unseen) > len(self.stored)
        ):
            chosen = self.unseen.choose(k, self._rng)
        else:
            chosen = self.stored.choose(k, self._rng)
        for sample in chosen:
            self.unseen.discard(int(sample))
        np.add.at(self._pins, chosen // self.windows, 1)
        return chosen

    def confirm(self, samples: Ids, batch: int, promised: bool = True) -> int:
        """The batch was trained on; returns how many of its samples were unseen before.

        promised: it still is; the pins that are there else belong to other batches.
        """
        slots, starts = samples // self.windows, samples % self.windows
        if promised:
            self._unpin(slots)
        first = (self._drawn[slots, starts] == 0) & (starts < self._held[slots])
        self._drawn[slots[first], starts[first]] = batch
        for sample, slot in zip(samples[first], slots[first]):
            self.unseen.discard(int(sample))
            self._left[slot] -= 1
            self.n_undrawn -= 1
            if self._left[slot] == 0:
                self._fresh.append((batch, int(slot)))
        return int(np.count_nonzero(first))

    def cancel(self, samples: Ids) -> None:
        """The batch was not used: what was unseen is unseen again."""
        slots = samples // self.windows
        self._unpin(slots)
        for sample, slot in zip(samples, slots):
            if sample in self.stored and self._drawn[slot, sample % self.windows] == 0:
                self._unsee(int(sample))
        self._queue_up()

    def snapshot(self, batch: int) -> list[int]:
        """Draws up to `batch` are safe; returns the slots of which this is true from now on."""
        slots = []
        while self._fresh and self._fresh[0][0] <= batch:
            slot = self._fresh.popleft()[1]
            self._let_go(slot)
            slots.append(slot)
        return slots

    def drawn_by(self, batch: int) -> list[int]:
        """The slots that a snapshot of `batch` would let go; nothing changes."""
        return [slot for drawn, slot in self._fresh if drawn <= batch]

    def keep(self, ordinal: int) -> None:
        """Everything that was admitted up to this ordinal is stored."""
        if self._kept is None:
            return
        self._kept = ordinal
        while self._unkept and self._unkept[0][0] <= ordinal:
            self._let_go(heapq.heappop(self._unkept)[1])

    def restore(self, batch: int) -> None:
        """Forgets every draw after `batch`; nothing is promised any more."""
        late = self._drawn > batch
        self._drawn[late] = 0
        self._pins[:] = 0
        self._fresh = deque(entry for entry in self._fresh if entry[0] <= batch)
        for sample in np.sort(self.stored.all()):
            slot, start = divmod(int(sample), self.windows)
            if self._drawn[slot, start] == 0 and sample not in self.unseen:
                self._unsee(int(sample))
        self._queue_up()
        for slot in np.unique(np.nonzero(late)[0]):
            left = int(np.count_nonzero(self._drawn[slot, : self._held[slot]] == 0))
            self.n_undrawn += left - int(self._left[slot])
            self._left[slot] = left

    def pinned(self, slot: int) -> bool:
        """Whether a batch that has been handed out, and not yet gathered, needs the slot."""
        return bool(self._pins[slot])

    def _unpin(self, slots: Ids) -> None:
        np.subtract.at(self._pins, slots, 1)

    # -- rules -----------------------------------------------------------------------------------

    def _let_go(self, slot: int) -> None:
        """Training needs the slot no more: evictable as soon as it is stored, if it is to be."""
        ordinal = int(self._ordinals[slot])
        if self._kept is not None and ordinal > self._kept:
            heapq.heappush(self._unkept, (ordinal, slot))
            return
        self.evictable.add(slot)
        self._order.append(slot)

    def _unsee(self, sample: int) -> None:
        self.unseen.add(sample)
        if self.policy == "fifo":
            self._queue.append(sample)

    def _queue_up(self) -> None:
        """fifo: what was taken back goes to its old place."""
        if self.policy == "fifo":
            samples = np.sort(self.unseen.all())
            order = np.argsort(self._arrival[samples // self.windows], kind="stable")
            self._queue = deque(int(sample) for sample in samples[order])

    def _oldest(self, k: int) -> Ids:
        chosen: list[int] = []
        while self._queue and len(chosen) < k:
            sample = self._queue.popleft()
            if sample in self.unseen and sample not in chosen:
                chosen.append(sample)
        return np.array(chosen, dtype=np.int64)

    def _choose_evicted(self) -> int:
        if self.policy == "fifo":
            while self._order:
                slot = self._order.popleft()
                if slot in self.evictable and not self._pins[slot]:
                    return slot
        for _ in range(32):
            slot = int(self.evictable.choose(1, self._rng)[0])
            if not self._pins[slot]:
                return slot
        unpinned = [int(slot) for slot in self.evictable.all() if not self._pins[slot]]
        # If all are promised, the rank will see the new generation and take another batch.
        return unpinned[0] if unpinned else slot

    def _remove(self, slot: int) -> None:
        for sample in range(slot * self.windows, slot * self.windows + int(self._held[slot])):
            self.stored.discard(sample)
            self.unseen.discard(sample)
        self.evictable.discard(slot)
        self.n_undrawn -= int(self._left[slot])
        self._left[slot] = 0
        self._held[slot] = self._pins[slot] = 0


# keep: held-out simulations, never evicted; store: evicted as soon as a keeper has them.
POLICIES = ("reservoir", "fifo", "firo", "keep", "store")

"""The reservoir's books against an obvious model of them, under any order of events.

The model keeps every sample as (slot, start) with the batch of its first draw, and looks at all of
them whenever it is asked.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock_server.reservoir import POLICIES, Reservoir

N_SLOTS, WINDOWS = 5, 3


class Books(RuleBasedStateMachine):
    """Puts, draws, snapshots and evictions in any order."""

    policy = "reservoir"
    keeper = False
    windows = WINDOWS

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.drawn = np.zeros((N_SLOTS, self.windows), dtype="<u4")
        self.real = Reservoir(self.policy, self.drawn, np.random.default_rng(seed), self.keeper)
        self.ordinals: dict[int, int] = {}  # slot -> order of its admission
        self.admitted = self.kept = 0
        self.held: dict[int, int] = {}  # slot -> samples in it
        self.arrived: list[int] = []  # slots by admission
        self.first: dict[int, int] = {}  # sample -> batch of its first draw, 0: none
        self.promised: list[list[int]] = []
        self.empty: set[int] = set()  # slots acquired and not put yet
        self.batch = self.covered = 0
        self.ever: dict[int, int] = {}  # sample -> how often it was drawn since it was put

    # -- what the model says ---------------------------------------------------------------------

    def unpromised(self) -> list[int]:
        """Undrawn samples that no batch was promised, by admission."""
        out = {sample for batch in self.promised for sample in batch}
        order = [s * self.windows + i for s in self.arrived for i in range(self.held[s])]
        return [s for s in order if self.first[s] == 0 and s not in out]

    def safe(self, slot: int) -> bool:
        """Whether going back to the last snapshot would not miss the slot."""
        batches = [self.first[slot * self.windows + i] for i in range(self.held[slot])]
        return all(0 < batch <= self.covered for batch in batches)

    def stored(self, slot: int) -> bool:
        """Whether the keeper has it, if there is one."""
        return not self.keeper or self.ordinals[slot] <= self.kept

    def drop(self, slot: int) -> None:
        for i in range(self.held.pop(slot)):
            sample = slot * self.windows + i
            del self.first[sample], self.ever[sample]
            for batch in self.promised:  # the rank sees the new generation and leaves them out
                if sample in batch:
                    batch.remove(sample)
        self.arrived.remove(slot)

    # -- events ----------------------------------------------------------------------------------

    @precondition(lambda self: self.real.n_available)
    @rule()
    def acquire(self) -> None:
        slot, evicted = self.real.acquire()
        assert slot not in self.empty
        assert evicted == (slot in self.held)
        if evicted:
            assert self.safe(slot), "what was never drawn, or drawn since the snapshot, was evicted"
            assert self.stored(slot), "what the keeper had not stored was evicted"
            pinned = {sample // self.windows for batch in self.promised for sample in batch}
            others = [
                s
                for s in self.held
                if self.safe(s) and self.stored(s) and self.held[s] and s not in pinned
            ]
            assert slot not in pinned or not others, "a promised slot went before an idle one"
            self.drop(slot)
            self.drawn[slot] = 0
        self.empty.add(slot)

    @precondition(lambda self: self.empty)
    @rule(n=st.integers(0, WINDOWS), data=st.data())
    def put(self, n: int, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.empty)))
        self.empty.remove(slot)
        n = min(n, self.windows)
        self.admitted += 1
        self.ordinals[slot] = self.admitted
        self.real.put(slot, n, self.admitted)
        self.hold(slot, n)

    def hold(self, slot: int, n: int) -> None:
        """The model's own note of a slot with n samples."""
        if self.policy == "store":
            n = 0  # nothing of it is to be drawn
        self.held[slot] = n
        self.arrived.append(slot)
        for i in range(n):
            self.first[slot * self.windows + i] = self.ever[slot * self.windows + i] = 0

    @precondition(lambda self: self.windows == 1 and self.empty)
    @rule()
    def put_all(self) -> None:
        """What bunches of small steps do."""
        slots = sorted(self.empty)
        ordinals = [self.admitted + 1 + i for i in range(len(slots))]
        self.real.put_all(slots, ordinals)
        self.empty.clear()
        self.admitted += len(slots)
        for slot, ordinal in zip(slots, ordinals):
            self.ordinals[slot] = ordinal
            self.hold(slot, 1)

    @precondition(lambda self: self.real.n_available)
    @rule(n=st.integers(1, WINDOWS), data=st.data())
    def admit(self, n: int, data: st.DataObject) -> None:
        self.acquire()
        self.put(n, data)

    @precondition(lambda self: self.real.n_available > 1)
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        for _ in range(self.real.n_available):
            self.admit(WINDOWS, data)

    @precondition(lambda self: self.empty)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.empty)))
        self.empty.remove(slot)
        self.real.release(slot)

    @precondition(lambda self: len(self.promised) < 3)
    @rule(k=st.sampled_from([1, 1, 2, 4, 8]), unseen_only=st.booleans(), urgent=st.booleans())
    def choose(self, k: int, unseen_only: bool, urgent: bool) -> None:
        unseen, stored = self.unpromised(), sorted(self.first)
        chosen = [int(s) for s in self.real.choose(k, unseen_only, urgent)]
        assert len(set(chosen)) == len(chosen), "a sample twice in a batch"
        if self.policy in ("keep", "store"):
            assert not chosen
            return
        if self.policy == "fifo":
            assert chosen == unseen[:k]
        first = (urgent and len(unseen) >= k) or 2 * len(unseen) > len(stored)
        allowed = unseen if self.policy != "reservoir" or unseen_only or first else stored
        assert len(chosen) == min(k, len(allowed))
        assert set(chosen) <= set(allowed)
        if chosen:
            self.promised.append(chosen)

    @precondition(lambda self: self.promised)
    @rule()
    def confirm(self) -> None:
        self.batch += 1
        samples = self.promised.pop(0)
        fresh = [s for s in samples if self.first[s] == 0]
        assert self.real.confirm(np.array(samples, dtype=np.int64), self.batch) == len(fresh)
        for sample in samples:
            self.first[sample] = self.first[sample] or self.batch
            self.ever[sample] += 1
            if self.policy in ("fifo", "firo"):
                assert self.ever[sample] == 1, "a sample was drawn again"

    @precondition(lambda self: self.keeper and self.kept < self.admitted)
    @rule(lag=st.integers(0, 3))
    def store(self, lag: int) -> None:
        self.kept = max(self.kept, self.admitted - lag)
        self.real.keep(self.kept)

    @rule(times=st.integers(2, 4))
    def train(self, times: int) -> None:
        for _ in range(times):
            self.choose(6, unseen_only=False, urgent=True)
            while self.promised:
                self.confirm()

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        samples = self.promised.pop(data.draw(st.integers(0, len(self.promised) - 1)))
        if self.policy in ("reservoir", "keep"):
            others = {s for batch in self.promised for s in batch}
            if any(s in others and self.first[s] == 0 for s in samples):
                self.promised.append(samples)  # one unseen sample in two batches is allowed here
                return
        self.real.cancel(np.array(samples, dtype=np.int64))

    @rule(lag=st.sampled_from([0, 0, 1, 2]))
    def snapshot(self, lag: int) -> None:
        batch = max(self.covered, self.batch - lag)
        before = {s for s in self.held if self.safe(s) and self.held[s]}
        self.covered = batch
        freed = self.real.snapshot(batch)
        now = {s for s in self.held if self.safe(s) and self.held[s]}
        assert {s for s in freed if self.held[s]} == now - before

    @rule()
    def restore(self) -> None:
        """The ranks go back to the newest snapshot; all promises are void."""
        self.real.restore(self.covered)
        self.batch = self.covered
        self.promised.clear()
        for sample, batch in self.first.items():
            if batch > self.covered:
                self.first[sample] = self.ever[sample] = 0

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def the_counts_agree(self) -> None:
        if not hasattr(self, "real"):
            return
        real = self.real
        assert sorted(int(s) for s in real.stored.all()) == sorted(self.first)
        assert real.n_undrawn == sum(batch == 0 for batch in self.first.values())
        assert sorted(int(s) for s in real.unseen.all()) == sorted(self.unpromised())
        evictable = {int(slot) for slot in real.evictable.all()}
        safe = {s for s in self.held if self.safe(s) and self.held[s]}
        assert {s for s in safe if self.stored(s)} <= evictable
        assert all(self.safe(slot) and self.stored(slot) for slot in evictable)
        if self.policy == "store":
            assert evictable == {s for s in self.held if self.stored(s)}
            assert real.n_unkept == len(self.held) - len(evictable)
        used = set(self.held) | self.empty
        assert sorted(real.free) == [s for s in range(N_SLOTS) if s not in used]
        assert real.n_available == len(real.free) + len(evictable)
        pinned = {sample // self.windows for batch in self.promised for sample in batch}
        assert {slot for slot in range(N_SLOTS) if real.pinned(slot)} == pinned
        for sample, batch in self.first.items():
            assert self.drawn[divmod(sample, self.windows)] == batch


def machine(policy: str, keeper: bool, windows: int) -> type[RuleBasedStateMachine]:
    rules = {"policy": policy, "keeper": keeper, "windows": windows}
    return type(f"Books_{policy}", (Books,), rules)


@pytest.mark.parametrize("windows", [WINDOWS, 1])
@pytest.mark.parametrize("keeper", [False, True], ids=["alone", "with-a-keeper"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_books_agree_with_the_model(policy: str, keeper: bool, windows: int) -> None:
    case = machine(policy, keeper, windows).TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
    case().runTest()

"""The ledger: every segment exactly once, whatever is reopened, copied or resumed in between."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.ledger import _GROWTH, CHUNK, SEGMENTS, Ledger, settled_segments

SIMULATIONS = st.sampled_from([0, 1, 7, 2**40])
SEGMENT = st.sampled_from([0, 1, 7, 8, 511, 512, 513, 1023, 1024, 99_999])


class Model:
    """The obvious ledger: a set a bit."""

    def __init__(self) -> None:
        self.admitted: dict[int, set[int]] = defaultdict(set)
        self.drawn: dict[int, set[int]] = defaultdict(set)
        self.settled: dict[int, set[int]] = defaultdict(set)
        self.steps: dict[int, tuple[int, int]] = {}
        self.exported: dict[int, set[int]] = {}

    def check(self, ledger: Ledger) -> None:
        names = {"admitted": self.admitted, "drawn": self.drawn, "settled": self.settled}
        for which, bits in names.items():
            assert ledger.totals()[which] == sum(map(len, bits.values()))
            for simulation in (0, 1, 7, 2**40):
                assert ledger.segments(simulation, which) == sorted(bits.get(simulation, ()))
        for simulation in (0, 1, 7, 2**40):
            assert ledger.n_admitted(simulation) == len(self.admitted.get(simulation, ()))
            steps, segments = self.steps.get(simulation, (None, None))
            assert (ledger.n_steps(simulation), ledger.n_segments(simulation)) == (steps, segments)
            for segment in (0, 511, 512, 5):
                admitted = segment in self.admitted.get(simulation, ())
                assert ledger.admitted(simulation, segment) == admitted
            for first, last in ((0, 0), (1, 6), (8, 511), (512, 512), (1, 1024), (514, 99_998)):
                some = any(first <= s <= last for s in self.admitted.get(simulation, ()))
                assert ledger.none_admitted(simulation, first, last) is not some


OPERATIONS = st.one_of(
    st.tuples(st.just("admit"), SIMULATIONS, SEGMENT),
    st.tuples(st.just("admit"), SIMULATIONS, SEGMENT),
    st.tuples(st.just("admit_all"), SIMULATIONS, st.sets(SEGMENT)),
    st.tuples(st.just("draw"), SIMULATIONS, SEGMENT),
    st.tuples(st.just("end"), SIMULATIONS, st.integers(0, 50)),
    st.tuples(st.sampled_from(["reopen", "copy", "settle", "resume"]), st.just(0), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=40))
def test_the_ledger_agrees_with_sets_of_segments(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger, model, copies = Ledger(folder / "ledger"), Model(), 0
    for what, simulation, number in operations:
        if what == "admit":
            new = number not in model.admitted[simulation]
            assert ledger.admit(simulation, number) == new
            model.admitted[simulation].add(number)
        elif what == "admit_all":
            new = sorted(number - model.admitted[simulation])
            if new:
                ledger.admit_all(simulation, new)
            model.admitted[simulation].update(new)
        elif what == "draw" and number in model.admitted[simulation]:
            assert ledger.draw(simulation, number) == (number not in model.drawn[simulation])
            model.drawn[simulation].add(number)
        elif what == "end":
            ledger.end(simulation, number, number // 2)
            model.steps[simulation] = (number, number // 2)
        elif what == "reopen":
            ledger = Ledger(folder / "ledger")
            model.exported = {}  # settle after a restart waits for the next checkpoint
        elif what == "copy":
            copies += 1
            ledger.copy(folder / "copy", copies)
            model.exported = {s: set(bits) for s, bits in model.drawn.items()}
        elif what == "settle":
            ledger.settle(copies)
            for s, bits in model.exported.items():
                model.settled[s] |= bits
        elif what == "resume" and copies:
            copied = Ledger(folder / "copy", writable=False)
            seen = {s: set(copied.segments(s, "drawn")) for s in copied.simulations()}
            steps = {s: (copied.n_steps(s), copied.n_segments(s)) for s in copied.simulations()}
            (folder / "ledger").unlink()
            ledger = Ledger.resume(folder / "copy", folder / "ledger")
            model = Model()
            for s, bits in seen.items():
                model.admitted[s], model.drawn[s], model.settled[s] = (
                    set(bits),
                    set(bits),
                    set(bits),
                )
            model.steps = {
                s: (a, b) for s, (a, b) in steps.items() if a is not None and b is not None
            }
        model.check(ledger)
    model.check(Ledger(folder / "ledger"))
    model.check(Ledger(folder / "ledger", writable=False))


def test_the_ledger_grows_over_many_chunks_and_keeps_every_bit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    n = 2 * _GROWTH + 10  # a chunk each
    for simulation in range(n):
        assert ledger.admit(simulation, simulation % SEGMENTS)
    for simulation in range(n):
        assert not ledger.admit(simulation, simulation % SEGMENTS)
    again = Ledger(tmp_path / "ledger")
    assert again.totals()["admitted"] == n
    assert (tmp_path / "ledger").stat().st_size == 3 * _GROWTH * CHUNK.itemsize
    assert all(again.segments(s) == [s % SEGMENTS] for s in range(n))


def test_a_chunk_that_was_begun_and_not_finished_is_not_there(tmp_path: Path) -> None:
    """The receiver died between the head of a chunk and its `used` mark."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.admit(3, 0)
    ledger._chunks["simulation"][1] = 99
    ledger._chunks["first_segment"][1] = 512
    again = Ledger(tmp_path / "ledger")
    assert list(again.simulations()) == [3]
    again.admit(4, 1)
    assert Ledger(tmp_path / "ledger").segments(4) == [1]


def test_a_lease_in_force_survives_with_what_was_granted_to_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.open(5, lease=9, n_parts=2, position=1, stride=3)
    ledger.cover(5, 65535)
    ledger.grant(5, 4)
    again = Ledger(tmp_path / "ledger")
    assert again.leases() == [(5, 9, 2, 4, 1, 3)]
    assert again.covered(5) == 65535
    again.open(5, lease=12, n_parts=1, position=0, stride=1)
    assert Ledger(tmp_path / "ledger").leases() == [(5, 12, 1, 0, 0, 1)]
    assert not Ledger(tmp_path / "ledger").covered(5)
    again.close(5)
    assert Ledger(tmp_path / "ledger").leases() == []


def test_a_resumed_ledger_has_no_lease_in_force(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.open(5, lease=9, n_parts=1, position=0, stride=1)
    ledger.copy(tmp_path / "copy")
    assert Ledger.resume(tmp_path / "copy", tmp_path / "resumed").leases() == []


def test_a_reader_may_look_while_the_writer_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.admit(1, 0)
    reader = Ledger(tmp_path / "ledger", writable=False)
    ledger.admit(1, 1)
    assert reader.segments(1) == [0, 1]
    with pytest.raises(TypeError, match="read-only"):
        reader.admit(1, 2)


def test_the_copy_of_an_empty_ledger_can_be_read_and_resumed(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger").copy(tmp_path / "ledger-0")
    assert Ledger(tmp_path / "ledger-0", writable=False).totals()["admitted"] == 0
    assert Ledger.resume(tmp_path / "ledger-0", tmp_path / "resumed").admit(1, 1)
    assert settled_segments(tmp_path) == {}


def test_the_ranges_of_all_shards_of_a_checkpoint_are_put_together(tmp_path: Path) -> None:
    for shard in (0, 1):
        ledger = Ledger(tmp_path / f"of-{shard}")
        for segment in range(shard, 10, 2):
            ledger.admit(7, segment)
            if segment not in (4, 9):
                ledger.draw(7, segment)
        ledger.copy(tmp_path / f"ledger-{shard}")
    assert settled_segments(tmp_path) == {7: [(0, 3), (5, 8)]}


def test_a_copy_has_what_its_checkpoint_covers_and_settles_with_that_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for segment in range(12):
        ledger.admit(7, segment)
    ledger.draw(7, 0)
    ledger.copy(tmp_path / "first", 200, [(7, 1), (7, 9)])
    assert ledger.segments(7, "drawn") == [0]  # no snapshot stands yet
    assert Ledger(tmp_path / "first", writable=False).segments(7, "drawn") == [0, 1, 9]
    ledger.copy(tmp_path / "second", 400, [(7, 1), (7, 9), (7, 3)])
    ledger.settle(300)
    assert ledger.segments(7, "settled") == []
    ledger.settle(200)  # the one at 400 was never finished
    assert ledger.segments(7, "settled") == [0, 1, 9]
    ledger.copy(tmp_path / "third", 300, [(7, 1), (7, 2), (7, 9)])
    ledger.settle(400)  # the ranks went back from there
    assert ledger.segments(7, "settled") == [0, 1, 9]
    ledger.settle(300)
    assert ledger.segments(7, "settled") == [0, 1, 2, 9]

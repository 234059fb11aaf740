"""A rank and its receiver's dispenser: batches in groups one way, draws in groups the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from receiver_thread import STEPS, ReceiverThread

from penstock_server import feed_line
from penstock_server.dispenser import LEAST, PART
from penstock_server.feed import ShardFeed

pytestmark = pytest.mark.timeout(60)
SIZE = 4


class Pair:
    """A receiver that holds so many samples, and its rank."""

    def __init__(
        self, folder: Path, n_samples: int, policy: str = "reservoir", work_ahead: bool = True
    ) -> None:
        self.receiver = ReceiverThread(folder, policy, n_slots=n_samples + STEPS)
        for simulation in range(n_samples // STEPS):
            assert self.receiver.admit(simulation, STEPS) == STEPS
        self.feed = ShardFeed(self.receiver.settings(SIZE, work_ahead=work_ahead))
        self.batch = 0

    def take(self) -> set[tuple[int, int]]:
        """(simulation, step) of the next batch, whose content is looked at."""
        self.batch += 1
        while not self.feed.stock(0.1).ready:
            pass
        batch = self.feed.take(self.batch)
        pairs = list(zip(batch.simulation.tolist(), batch.step[:, 0].tolist()))
        for i, (simulation, step) in enumerate(pairs):
            assert (batch.fields["u"][i] == STEPS * simulation + step).all()
            assert batch.t[i, 0] == 0.5 * step
        return set(pairs)

    def noted(self) -> int:
        """Samples that the slab says were drawn."""
        return int((self.receiver.shard.slab.drawn != 0).sum())

    def promised(self) -> int:
        return int(self.receiver.do(lambda: len(self.receiver.dispenser._out)))

    def close(self) -> None:
        self.feed.close()
        self.receiver.kill()


@pytest.fixture(params=[False, True], ids=["alone", "ahead"])
def large(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    monkeypatch.setattr(feed_line, "REPORT_S", 60.0)  # goes by the number alone
    pair = Pair(tmp_path, 400, work_ahead=request.param)
    yield pair
    pair.close()


def test_draws_are_told_in_groups(large: Pair) -> None:
    for _ in range(64):
        large.take()
        large.receiver.do(lambda: None)  # it has had its turn
    large.feed.report()
    assert large.receiver.dispenser.heard[b"T"] <= 64 // 2  # 8 where nothing is late


def test_a_slow_trainer_tells_of_each_batch(large: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_line, "REPORT_S", 0.0)
    heard = large.receiver.dispenser.heard
    for batch in range(1, 11):
        large.take()
        large.feed.stock(0.0)
        while heard[b"T"] < batch:
            large.receiver.do(lambda: None)
    assert heard[b"T"] == 10


def test_all_of_the_depth_is_promised_where_much_is_stored(large: Pair) -> None:
    large.take()
    assert large.promised() == large.feed._settings.depth


@pytest.mark.parametrize(("n_samples", "expected"), [(20, LEAST), (160, 160 // (PART * SIZE))])
def test_no_more_than_a_part_of_what_is_stored_is_promised(
    tmp_path: Path, n_samples: int, expected: int
) -> None:
    pair = Pair(tmp_path, n_samples)
    pair.take()
    assert pair.promised() == expected
    pair.close()


def test_counts_take_in_what_the_receiver_was_not_told(large: Pair) -> None:
    assert large.feed.stock(0.1).unseen == 400
    drawn: set[tuple[int, int]] = set()
    for _ in range(3):
        fresh = large.feed.stock(0.0).fresh
        new = large.take() - drawn
        assert len(new) == fresh
        drawn |= new
    assert large.receiver.dispenser.heard[b"T"] == 0
    assert large.noted() == 0
    assert large.feed.stock(0.0).unseen == 400 - len(drawn)


def test_before_a_request_the_receiver_knows_of_every_draw(large: Pair) -> None:
    drawn: set[tuple[int, int]] = set()
    for _ in range(3):
        drawn |= large.take()
    large.feed.hold(True)
    assert large.noted() == len(drawn)


def test_a_wait_for_batches_and_the_end_tell_of_every_draw(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 20, policy="firo")
    for _ in range(4):
        pair.take()
    pair.feed.close()
    wait_until(pair, 16)
    pair.feed = ShardFeed(pair.receiver.settings(SIZE))
    pair.take()
    assert not pair.feed.stock(0.2).ready
    wait_until(pair, 20)
    pair.close()


def test_between_two_simulations_a_short_batch_is_not_promised(tmp_path: Path) -> None:
    """The ranks would not train on it, and full ones would stand behind it."""
    pair = Pair(tmp_path, 0, policy="firo")
    assert pair.receiver.admit(0, SIZE - 1) == SIZE - 1
    assert not pair.feed.stock(0.2).ready
    assert pair.receiver.admit(1, 7) == 7
    assert len(pair.take()) == SIZE
    while pair.feed.stock(0.1).ready:
        assert len(pair.take()) == SIZE
    pair.receiver.over()
    rest = 0
    while pair.feed.stock(0.2).ready:
        rest += len(pair.take())
    assert rest == (SIZE - 1 + 7) % SIZE
    pair.close()


def wait_until(pair: Pair, n: int) -> None:
    while pair.noted() < n:
        pair.receiver.do(lambda: None)
    assert pair.noted() == n


def test_what_a_killed_receiver_had_heard_and_not_noted_is_said_to_the_next(large: Pair) -> None:
    drawn = large.take()
    entered, leave = large.receiver.halt()
    entered.wait(10)
    large.feed._line._report()  # to a receiver that will never read it
    leave.set()
    large.receiver.kill()
    assert large.noted() == 0
    large.receiver.start()
    large.feed.report()
    assert large.noted() == len(drawn)
    while large.feed.stock(0.0).unseen > 400 - len(drawn):  # the books are written every turn
        large.receiver.do(lambda: None)
    assert large.feed.stock(0.0).unseen == 400 - len(drawn)


def test_a_draw_that_is_told_twice_is_counted_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 20)
    drawn: set[tuple[int, int]] = set()
    for _ in range(20):
        drawn |= pair.take()
        pair.feed._line._report()
        for sent in list(pair.feed._line.reports._sent):
            pair.feed._line._socket.send_multipart(sent.frames)
        pair.feed.hold(False)
        assert pair.noted() == len(drawn)
        assert pair.receiver.do(lambda: pins(pair.receiver))
    pair.close()


def test_a_draw_that_is_told_again_after_a_new_attach_leaves_the_pins_alone(tmp_path: Path) -> None:
    pair = Pair(tmp_path, 20)
    line, drawn = pair.feed._line, set[tuple[int, int]]()
    for _ in range(20):
        drawn |= pair.take()
        line._report()
        said = [sent.frames for sent in line.reports._sent]
        line.restart("attach")
        for frames in said:
            line._socket.send_multipart(frames)
        pair.feed.hold(False)
        assert pair.noted() == len(drawn)
        assert pair.receiver.do(lambda: pins(pair.receiver))
    pair.close()


def test_a_request_that_is_said_again_is_done_once(
    large: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint to which a ledger goes may stand by then."""
    monkeypatch.setattr(feed_line, "RETRY_S", 0.05)
    said_again, exported = Event(), list[int]()

    def export(path: Path, batch: int) -> None:
        exported.append(batch)
        assert said_again.wait(10)

    monkeypatch.setattr(large.receiver.shard, "export", export)
    monkeypatch.setattr(large.feed._line, "_report_again", said_again.set)
    large.feed.export_ledger(tmp_path / "ledgers", 1)
    large.feed.hold(True)  # comes after what was said again
    assert exported == [1]
    assert large.receiver.shard.credit.held


def test_a_report_that_was_lost_is_said_again_though_later_ones_came(large: Pair) -> None:
    drawn, reports = large.take(), large.feed._line.reports
    reports.pack()  # and a receiver took it with it
    for _ in range(2):
        drawn |= large.take()
        large.feed._line._socket.send_multipart(reports.pack())
    while large.receiver.dispenser.heard[b"T"] < 2:
        pass
    large.feed.report()
    assert large.noted() == len(drawn)


def pins(receiver: ReceiverThread) -> bool:
    """Whether the slots that batches under way need are just those that are pinned."""
    reservoir, out = receiver.shard.reservoir, receiver.dispenser._out.values()
    slots = np.concatenate([samples for samples, _ in out])
    return bool((np.bincount(slots, minlength=reservoir.n_slots) == reservoir._pins).all())


def test_a_snapshot_waits_until_every_draw_is_noted(large: Pair) -> None:
    drawn = large.take()
    large.feed.report()
    assert large.noted() == len(drawn)
    heard = large.receiver.dispenser.heard[b"J"]
    large.feed.report()  # the slab shows it: nothing is asked
    assert large.receiver.dispenser.heard[b"J"] == heard

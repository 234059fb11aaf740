"""Plans: a shard hears of a layout as long as something that was said under it may come again."""

from __future__ import annotations

import numpy as np
import pytest
import zmq
from test_sender_window import CAMPAIGN, FakeShard, connect, context, settle, shard

from penstock.layout import FieldSpec
from penstock.layout import share as owned
from penstock.plans import Plans
from penstock.sender import Sender
from penstock.wire import Header, Kind

__all__ = ["context", "shard"]

pytestmark = pytest.mark.timeout(60)

U = FieldSpec("u", 0, (6,), np.dtype("float32"))
IDENTITY = Header(Kind.HELLO, CAMPAIGN, part=2, n_parts=5)


def lay_out(plans: Plans, rows: slice) -> None:
    plans.forget()
    plans.renew(IDENTITY, [U], {"u": owned(U, (rows,))})


def open_(sender: Sender, plans: Plans, lease: int) -> None:
    header = Header(Kind.OPEN, CAMPAIGN, lease, lease, plan=plans.number)
    sender.announce(("open", lease), header, [])


def test_a_plan_is_announced_once_to_each_shard(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender, plans = connect(context, shard), Plans()
    assert not plans.up_to_date
    lay_out(plans, slice(0, 2))
    plans.tell([sender])
    plans.tell([sender])
    shard.expect(Kind.HELLO)
    plan, (payload,) = shard.receive()
    assert (plan.kind, plan.plan, plan.part, plan.n_parts) == (Kind.PLAN, 1, 2, 5)
    assert payload == owned(U, (slice(0, 2),)).plan.tobytes()
    assert [entry.n_bytes for entry in plan.fields] == [len(payload)]
    assert shard.quiet()


def test_a_plan_that_is_over_comes_again_with_what_is_not_acknowledged_and_then_no_more(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender, plans = connect(context, shard), Plans()
    lay_out(plans, slice(0, 2))
    plans.tell([sender])
    open_(sender, plans, 1)
    sender.post(Header(Kind.END, CAMPAIGN, 1, 1, plan=1), [])
    sender.withdraw(("open", 1))
    lay_out(plans, slice(0, 3))
    plans.withdraw()
    plans.tell([sender])
    open_(sender, plans, 2)
    first = [Kind.PLAN, Kind.OPEN, Kind.END, Kind.PLAN, Kind.OPEN]
    shard.expect(Kind.HELLO, *first)
    shard.acknowledge(2)  # not the END
    settle(sender)
    shard.resync()
    settle(sender)
    again = shard.expect(
        Kind.HELLO, Kind.PLAN, Kind.OPEN, Kind.PLAN, Kind.OPEN, Kind.END, Kind.PLAN, Kind.OPEN
    )
    assert [header.plan for header in again] == [0, 1, 1, 2, 2, 1, 2, 2]
    shard.acknowledge(7, greeting=2)
    sender.drain()
    shard.resync()
    settle(sender)
    assert [header.plan for header in shard.expect(Kind.HELLO, Kind.PLAN, Kind.OPEN)] == [0, 2, 2]
    assert shard.quiet()


def test_a_plan_that_an_open_simulation_names_stays(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender, plans = connect(context, shard), Plans()
    for rows in (slice(0, 2), slice(0, 3)):  # fields are learned while it runs
        lay_out(plans, rows)
        plans.tell([sender])
    shard.expect(Kind.HELLO, Kind.PLAN, Kind.PLAN)
    for again, plan_numbers in ((1, [1, 2]), (2, [2])):
        shard.acknowledge(2, greeting=again)
        sender.drain()
        shard.resync()
        settle(sender)
        headers = shard.expect(Kind.HELLO, *[Kind.PLAN] * len(plan_numbers))
        assert [header.plan for header in headers[1:]] == plan_numbers
        plans.withdraw()


def test_a_hundred_layouts_leave_one_behind(
    context: zmq.Context[zmq.Socket[bytes]], shard: FakeShard
) -> None:
    sender, plans = connect(context, shard), Plans()
    for n in range(100):
        lay_out(plans, slice(0, n % 6))
        plans.withdraw()
        plans.tell([sender])
    shard.expect(Kind.HELLO, *[Kind.PLAN] * 100)
    shard.acknowledge(100)
    sender.drain()
    assert list(sender._announced) == [("plan", 100)]

"""Physics at the door: ranges and a function of the user's, on a shard and for a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coordinator_desk import Desk, ended, refusal, settings

from penstock.wire import FieldEntry, Header, Kind
from penstock_server.check_report import examine, refusals
from penstock_server.config import CampaignError, parse
from penstock_server.door import Refusal
from penstock_server.ledger import Ledger
from penstock_server.physics import Physics, PhysicsError, find_check
from penstock_server.plans import Plan, read_target
from penstock_server.reservoir import Reservoir
from penstock_server.shard import Shard
from penstock_server.slab import Slab, SlabSpec

MINIMAL = """
name = "c"
[solver]
command = ["true"]
steps = 2
[design]
simulations = 2
parameters = {{ p = {{ low = 0, high = 1 }} }}
[fields.u]
shape = [4]
{field}
{more}
"""
HALVES = [[0, 1, 4, 0, 2], [0, 1, 4, 2, 2]]  # the plans of two parts


def make(folder: Path, physics: Physics) -> Shard:
    slab = Slab.create(folder, SlabSpec(8, 1, 1, 1, {"u": ((4,), "float32")}, {}, 0, 2))
    reservoir = Reservoir("reservoir", slab.drawn, np.random.default_rng(0))
    shard = Shard(slab, Ledger(folder / "ledger"), reservoir, ["u"], 10, physics=physics)
    for part, numbers in enumerate(HALVES):
        header = Header(Kind.OPEN, 0, 1, 1, part=part, n_parts=2, geometry=1)
        target = read_target("u", (4,), np.array(numbers, dtype="<i8").tobytes())
        shard.open(header, np.array([0.5]).tobytes(), b"peer", Plan({0: target}, bytes([part])))
    shard.credit.grant()
    return shard


def send(shard: Shard, part: int, step: int, values: Any) -> None:
    entries = (FieldEntry(0, 1, 8),)
    header = Header(Kind.PART, 0, 1, 1, step, part, 2, t=0.25 * step, fields=entries)
    reception = shard.receive(header)
    reception.arrays[0][:] = values
    shard.receive_done(reception)


def test_a_value_outside_its_range_is_refused_with_the_numbers(tmp_path: Path) -> None:
    shard = make(tmp_path, Physics({"u": (0.0, 10.0)}))
    send(shard, 0, 0, [0, 10])
    with pytest.raises(Refusal, match="from -1 to 3 at step 0, part 1; the") as caught:
        send(shard, 1, 0, [-1, 3])
    assert caught.value.reason.endswith("the campaign allows 0 to 10.")
    assert (caught.value.kind, caught.value.field) == ("range", "u")
    assert not shard.ledger.admitted(1, 0)


def test_an_input_field_outside_its_range_is_refused(tmp_path: Path) -> None:
    box = {"u": ((4,), "float32")}
    slab = Slab.create(tmp_path, SlabSpec(8, 1, 1, 0, box, {"k": ((4,), "float32")}, 8, 1))
    reservoir = Reservoir("reservoir", slab.drawn, np.random.default_rng(0))
    physics = Physics({"k": (0.0, 1.0)}, inputs=["k"])
    assert not physics.demands  # of steps: they may still come in bunches
    ledger = Ledger(tmp_path / "ledger")
    shard = Shard(slab, ledger, reservoir, ["u", "k"], 10, physics=physics)
    target = read_target("u", (4,), np.array([0, 1, 4, 0, 4], dtype="<i8").tobytes())
    plan = Plan({0: target, 1: target}, b"whole")
    shard.open(Header(Kind.OPEN, 0, 1, 1, geometry=1), b"", b"peer", plan)
    header = Header(Kind.INPUT, 0, 1, 1, fields=(FieldEntry(1, 1, 16),))
    shard.receive_inputs(header, [np.array([0, 1, 0.5, 0], "f4").tobytes()])
    with pytest.raises(Refusal, match="'k' has values from 0 to 2 in part 0; the camp") as caught:
        shard.receive_inputs(header, [np.array([0, 1, 2, 0], "f4").tobytes()])
    assert caught.value.kind == "range"


def test_the_check_sees_every_whole_step_with_its_time_and_parameters(tmp_path: Path) -> None:
    seen: list[Any] = []

    def check(fields: Mapping[str, Any], t: float, parameters: Mapping[str, float]) -> None:
        seen.append((fields["u"].tolist(), t, dict(parameters)))
        with pytest.raises(ValueError, match="read-only"):
            fields["u"][0] = 7

    shard = make(tmp_path, Physics({}, check, ["alpha"]))
    send(shard, 1, 1, [3, 4])
    assert not seen
    send(shard, 0, 1, [1, 2])
    assert seen == [([1, 2, 3, 4], 0.25, {"alpha": 0.5})]
    assert shard.ledger.admitted(1, 1)


def test_a_step_that_the_check_refuses_is_not_admitted_nor_marked(tmp_path: Path) -> None:
    shard = make(tmp_path, Physics({}, lambda fields, t, p: f"energy {fields['u'].sum():g}"))
    send(shard, 0, 0, [1, 2])
    with pytest.raises(Refusal, match="refused step 0: energy 10") as caught:
        send(shard, 1, 0, [3, 4])
    assert caught.value.kind == "physics"
    assert shard.slab.parts[:, 0, 0].max() == 1  # the second part would be admitted by a restart
    assert shard.counters["admitted"] == 0


def test_a_check_that_fails_refuses_with_its_error(tmp_path: Path) -> None:
    shard = make(tmp_path, Physics({}, lambda fields, t, p: fields["v"]))
    send(shard, 0, 0, [1, 2])
    with pytest.raises(Refusal, match="the check itself failed: KeyError: 'v'"):
        send(shard, 1, 0, [3, 4])


@pytest.mark.parametrize(
    ("reference", "why"),
    [("no_such_module:f", "cannot be imported"), ("math:nothing", "cannot be imported"),
     ("math:pi", "should be a function")],
)  # fmt: skip
def test_a_check_that_cannot_be_had_is_named(reference: str, why: str) -> None:
    with pytest.raises(PhysicsError, match=why):
        find_check(reference)


def test_a_campaign_whose_check_is_missing_is_refused_before_anything_starts() -> None:
    campaign = parse(MINIMAL.format(field="", more='[admission]\ncheck = "no_such:check"'))
    assert "no_such:check" in refusals(campaign, examine(campaign))[0]


def test_a_campaign_ends_when_too_many_simulations_were_refused() -> None:
    desk = Desk(settings(train=10, most_refused=0.1))
    worker = desk.started()
    first = desk.next(worker)
    desk.report("0", refused=[refusal(first, "physics")])
    second = desk.next(worker, ended(first))
    assert desk.status()["state"] == "running"
    desk.report("0", refused=[refusal(second, "physics")])
    status = desk.status()
    assert status["state"] == "stopping"
    assert (
        "2 training simulations were refused, more than admission.most_refused = 0.1"
        in (status["why"])
    )


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(CampaignError, match=r"range is \[least, greatest\], got \[1.0, 0.0\]"):
        parse(MINIMAL.format(field="range = [1, 0]", more=""))

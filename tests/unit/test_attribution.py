"""What stands in summary.json of where the seconds went."""

from __future__ import annotations

import pytest
from test_steady import status

from penstock_server.advice import Setup
from penstock_server.attribution import attribute, split
from penstock_server.steady import Steady
from penstock_server.summary import ShardCounts, summarise

ONLINE = Setup(workers=1, cores=8, draws_per_sample=2.0)


def test_the_network_gets_its_part_of_the_time_that_solvers_had_credit() -> None:
    waits = {"solver": 8.0, "network": 1.0, "start": 3.0}
    told = {"seconds": 100.0, "credit": 20.0, "window": 20.0}  # of 80 s with credit, 20
    assert split(waits, told) == {"solver": 6.0, "network": 3.0, "start": 3.0}
    assert split(waits, {}) == waits
    assert split(waits, {"seconds": 5.0, "credit": 5.0, "window": 0.0}) == waits
    assert split({}, told) == {}


def test_parts_add_up_to_the_whole() -> None:
    steady = Steady()
    for seconds, waited in ((10.0, 1.0), (20.0, 3.0), (40.0, 7.0)):
        draws, admitted = int(20 * (seconds - waited)), int(5 * seconds)
        steady.take(
            status(
                seconds, waited=waited, draws=draws, admitted=admitted, workers=seconds, busy=0.0
            ),
            {"solvers": seconds, "all": 2 * seconds},
        )
    last = status(40.0, waited=7.0, workers=40.0, busy=0.0)
    found = attribute(last, steady, ONLINE)
    assert found["ranks_s"] == [{"compute": 33.0, "wait": 7.0}]
    assert sum(found["waits_s"].values()) == found["ranks_s"][0]["wait"]
    beside = found["side_by_side"]
    assert beside["seconds"] == 30.0 == beside["compute_s"] + sum(beside["waits_s"].values())
    # 5 samples a second; without waiting 20 draws a second use 10.
    assert beside["produced"] == 0.5
    assert found["advice"] == (
        "Training waited 20 % of the time, because 1 worker produces 50 % of what it can use; "
        "2 would do."
    )
    assert found["receivers_s"]["0"] == {"busy": 0.0, "idle": 100.0}


def test_all_ranks_are_told_of_if_they_were_heard() -> None:
    last = status(40.0)
    last["trainer"]["ranks_s"] = [{"compute": 30.0}, {"compute": 20.0, "agree": 10.0}]
    assert attribute(last, Steady(), ONLINE)["ranks_s"] == last["trainer"]["ranks_s"]


@pytest.mark.parametrize("mode", ["offline", "store"])
def test_a_run_without_trainer_or_workers_has_empty_tables(mode: str) -> None:
    found = attribute({"state": "over"}, Steady(), Setup(mode=mode))
    assert found["ranks_s"] == []
    assert found["waits_s"] == found["workers_s"] == found["receivers_s"] == {}
    assert found["side_by_side"]["produced"] is None
    assert found["advice"] == ""


def counted(**shard: float) -> ShardCounts:
    counts = ShardCounts()
    counts.update({"0": {"pid": 1, "counters": shard}})
    counts.update({"held-out": {"pid": 2, "counters": {"admitted_samples": 40, "unseen": 40}}})
    return counts


def test_what_was_trained_on_is_counted_where_the_last_batch_is_known() -> None:
    """A budget of 20 batches of 16: the trainer's own count is a batch behind, the shard's not."""
    last = {
        "simulations": {},
        "trainer": {"draws": 320, "unique": 304, "batches": 20, "seconds": 2.0},
    }
    counts = counted(admitted_samples=440, unseen=120)
    found = summarise(last, counts, seconds=3.0, phases={}, about={"mode": "online"})
    assert found["samples"]["trained_unique"] == 320
    assert found["samples"]["untrained_by_budget"] == 120
    assert found["throughput"]["unique_per_s"] == 160


def test_offline_the_trainer_counts_what_it_trained_on() -> None:
    """The shards were filled, and nobody has drawn from them."""
    last = {"simulations": {}, "trainer": {"draws": 320, "unique": 300, "seconds": 2.0}}
    counts = counted(admitted_samples=440, unseen=0)
    found = summarise(last, counts, seconds=3.0, phases={}, about={"mode": "offline"})
    assert found["samples"]["trained_unique"] == 300
    nothing = summarise({"simulations": {}}, counts, seconds=3.0, phases={}, about={})
    assert nothing["samples"]["trained_unique"] == 0
    assert nothing["advice"] == ""

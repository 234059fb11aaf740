"""Who is given what, when a simulation is complete, and what survives a restart."""

from __future__ import annotations

from coordinator_desk import Desk, ended, settings

from penstock_server.coordinator import planned, seed_of
from penstock_server.coordinator.plan import LAST_SEGMENT, missing


def test_held_out_simulations_come_first_and_ids_are_consecutive() -> None:
    plan = settings(train=3, validation=2).simulations
    assert [(s.id, s.role) for s in plan] == [
        (0, "validation"), (1, "validation"), (2, "train"), (3, "train"), (4, "train")
    ]  # fmt: skip
    desk = Desk(settings(train=1, validation=1))
    worker = desk.started()
    first = desk.next(worker)
    assert (first["role"], first["shards"]) == ("validation", ["held-out"])
    assert desk.next(worker, ended(first))["role"] == "train"


def test_training_simulations_rotate_over_the_shards() -> None:
    plan = planned(
        {"train": [{"x": 1.0}] * 4},
        campaign_seed=0,
        training_shards=["0", "1", "2"],
        shards_per_simulation=2,
    )
    assert [s.shards for s in plan] == [["0", "1"], ["1", "2"], ["2", "0"], ["0", "1"]]


def test_a_seed_depends_on_campaign_and_simulation_alone() -> None:
    assert seed_of(1, 5) == seed_of(1, 5)
    assert len({seed_of(campaign, number) for campaign in (1, 2) for number in range(100)}) == 200


def test_hello_waits_until_all_shards_have_reported() -> None:
    desk = Desk(settings(shards=2))
    desk.report("0")
    worker = desk.beat("a1", "idle")["worker"]
    assert desk.say("hello", worker=worker, agent="a1")["kind"] == "wait"
    desk.report("1")
    welcome = desk.say("hello", worker=worker, agent="a1")
    assert welcome["shards"]["1"] == {"address": "tcp://127.0.0.1:51", "epoch": 1}
    assert (welcome["campaign"], welcome["name"]) == (2**64 - 1, "heat")
    assert welcome["fields"] == desk.settings.fields


def test_the_epoch_of_a_shard_grows_when_its_address_changes() -> None:
    desk = Desk()
    assert desk.say("report", shard="0", address="tcp://h:1")["epoch"] == 1
    assert desk.say("report", shard="0", address="tcp://h:1")["epoch"] == 1
    assert desk.say("report", shard="0", address="tcp://h:2")["epoch"] == 2
    assert desk.say("book")["shards"]["0"] == {"address": "tcp://h:2", "epoch": 2}


def test_the_same_sequence_number_gives_the_same_assignment() -> None:
    desk = Desk()
    worker = desk.started()
    first = desk.say("next", worker=worker, sequence=1)
    assert desk.say("next", worker=worker, sequence=1) == first
    assert desk.say("next", worker=worker, sequence=0)["kind"] == "refused"
    second = desk.say("next", worker=worker, sequence=2, previous=ended(first))
    assert second["simulation"] != first["simulation"]


def test_every_assignment_has_a_new_lease_number() -> None:
    desk = Desk(settings(train=4))
    leases = []
    for agent in ("a1", "a2"):
        worker = desk.started(agent)
        first = desk.next(worker)
        leases += [first["lease"], desk.next(worker, ended(first))["lease"]]
    assert leases == sorted(set(leases))


def test_a_worker_waits_when_all_is_given_out_and_is_told_when_all_is_over() -> None:
    desk = Desk(settings(train=1))
    worker = desk.started()
    given = desk.next(worker)
    waiting = desk.say("next", worker=worker, sequence=5, previous=ended(given))
    assert waiting["kind"] == "wait"
    desk.deliver(given)
    repeated = desk.say("next", worker=worker, sequence=5, previous=ended(given))
    assert repeated["kind"] == "over"


def test_a_simulation_is_completed_when_it_ended_and_every_shard_confirmed() -> None:
    desk = Desk(settings(train=2, shards=2))
    worker = desk.started()
    first = desk.next(worker)
    desk.report("0", delivered=[[first["simulation"], first["lease"], 6]])
    desk.report("1", delivered=[[first["simulation"], first["lease"], 4]])
    assert desk.simulation(0).state == "running"
    second = desk.next(worker, ended(first))
    assert (desk.simulation(0).state, desk.simulation(0).segments) == ("completed", 10)
    desk.next(worker, ended(second))
    desk.report("1", delivered=[[1, second["lease"], 4]])
    assert desk.simulation(1).state == "ended"
    desk.report("0", delivered=[[1, second["lease"], 6]])
    assert desk.simulation(1).state == "completed"
    desk.report("0", delivered=[[1, second["lease"], 6]])
    assert desk.status()["simulations"]["completed"] == 2


def test_a_worker_lost_before_delivery_gives_its_ended_simulation_back() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    first = desk.next(worker)
    desk.next(worker, ended(first))
    desk.beat(state="exited", exit_code=-9)
    assert [desk.simulation(n).state for n in (0, 1)] == ["queued", "queued"]
    again = desk.next(desk.started())
    assert (again["simulation"], again["attempt"]) == (0, 2)
    assert again["lease"] > first["lease"]
    assert again["seed"] == first["seed"]
    assert desk.simulation(0).faults == 0


def test_a_worker_lost_after_delivery_loses_nothing() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.deliver(given)
    desk.beat(state="exited", exit_code=-9)
    assert desk.simulation(0).state == "completed"


def test_a_program_that_runs_one_simulation_and_exits_is_started_again() -> None:
    desk = Desk(settings(train=2))
    for number in range(2):
        worker = desk.started()
        given = desk.next(worker)
        assert given["simulation"] == number
        assert desk.next(worker, ended(given), leaving=True)["kind"] == "over"
        desk.deliver(given)
        desk.beat(state="exited", exit_code=0)
    assert desk.faults() == []
    assert desk.status()["state"] == "over"


def test_a_worker_started_by_hand_is_served() -> None:
    desk = Desk()
    desk.report()
    assert desk.say("hello", worker="mine", agent=None)["kind"] == "welcome"
    assert desk.next("mine")["kind"] == "assignment"
    assert desk.say("hello", worker="w77", agent="a9")["kind"] == "refused"
    assert desk.say("next", worker="nobody", sequence=1)["kind"] == "refused"


def test_a_coordinator_killed_and_started_again_goes_on() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    first = desk.say("next", worker=worker, sequence=1)
    desk.restart()
    assert desk.say("next", worker=worker, sequence=1) == first
    assert desk.beat(state="running")["order"] == "go_on"
    desk.restart()
    second = desk.say("next", worker=worker, sequence=2, previous=ended(first))
    assert second["lease"] == first["lease"] + 1
    desk.deliver(first)
    desk.restart()
    assert desk.status()["simulations"]["completed"] == 1
    assert desk.say("book")["shards"]["0"]["epoch"] == 1


def test_a_restart_gives_everybody_time_to_come_back() -> None:
    desk = Desk()
    desk.next(desk.started())
    desk.now += 1000.0
    desk.restart()
    desk.wait(10.0, reporting=False)
    assert desk.simulation(0).state == "running"
    desk.wait(10.0, reporting=False)
    assert desk.simulation(0).state == "queued"


def test_a_pause_of_the_coordinator_itself_is_nobodys_silence() -> None:
    desk = Desk()
    desk.next(desk.started())
    desk.wait(5.0, "a1")
    desk.now += 3600.0
    desk.wait(5.0)
    assert desk.simulation(0).state == "running"


def test_the_missing_segments_are_the_complement_of_the_settled_ones() -> None:
    assert missing([], 5) == [[0, 4]]
    assert missing([(1, 2), (4, 4)], 6) == [[0, 0], [3, 3], [5, 5]]
    assert missing([(0, 5)], 6) == []
    assert missing([(2, 3), (0, 1)], None) == [[4, LAST_SEGMENT]]


def test_a_resumed_campaign_asks_for_what_no_checkpoint_holds() -> None:
    desk = Desk(settings(train=4))
    worker = desk.started()
    first = desk.next(worker)
    desk.deliver(first)
    second = desk.next(worker, ended(first))
    desk.deliver(second)
    third = desk.next(worker, ended(second))
    settled = {0: [(0, 9)], 1: [(0, 3), (6, 6)], 2: [(0, 0)]}
    desk.restart(settings(train=4, run="run-2", settled=settled))
    assert desk.status()["simulations"]["completed"] == 1
    assert desk.say("next", worker=worker, sequence=9)["kind"] == "over"
    worker = desk.started()
    given = [desk.next(worker)]
    while given[-1]["kind"] == "assignment":
        given.append(desk.next(worker, ended(given[-1])))
    assert [(g["simulation"], g["wanted"]) for g in given[:-1]] == [
        (1, [[4, 5], [7, 9]]),
        (2, [[1, LAST_SEGMENT]]),
        (3, None),
    ]
    assert given[0]["lease"] > third["lease"]
    desk.restart()  # of the coordinator alone: the resumption is not repeated
    assert desk.simulation(1).state == "ended"

"""The campaign as a whole: over, trained, stopped; and what the supervisor is shown."""

from __future__ import annotations

from typing import Any

from coordinator_desk import Desk, ended, settings


def completed_campaign(**chosen: Any) -> Desk:
    desk = Desk(settings(train=1, **chosen))
    worker = desk.started()
    given = desk.next(worker)
    while given["kind"] == "assignment":
        desk.deliver(given)
        given = desk.next(worker, ended(given))
    return desk


def test_production_is_over_when_every_simulation_is_settled() -> None:
    desk = completed_campaign(validation=1)
    assert desk.status()["state"] == "over"
    report = desk.report("0")
    assert (report["production"], report["stop"]) == ("over", False)


def test_workers_end_by_themselves_when_production_is_over() -> None:
    desk = completed_campaign(leave_grace_s=10.0)
    assert desk.beat(state="running")["order"] == "go_on"
    assert desk.beat(state="exited", exit_code=0)["order"] == "leave"
    assert desk.beat("a2", "idle")["order"] == "leave"


def test_workers_that_do_not_end_by_themselves_are_sent_home() -> None:
    desk = completed_campaign(leave_grace_s=10.0)
    desk.wait(11.0, "a1")
    assert desk.beat(state="running")["order"] == "leave"


def test_the_trainer_ends_the_campaign_when_it_is_done() -> None:
    desk = Desk(settings(train=3, validation=1))
    worker = desk.started()
    given = desk.next(worker)
    assert not desk.say("progress", state="training", batches=1)["stop"]
    desk.say("progress", state="done", batches=2)
    assert desk.status()["state"] == "trained"
    assert desk.next(worker, ended(given))["kind"] == "over"
    assert desk.beat(state="running")["order"] == "leave"
    assert desk.report("0")["stop"]
    assert not desk.report("held-out")["stop"]  # the validator still reads it


def test_a_reached_target_error_stops_the_trainer() -> None:
    desk = Desk(settings(target_error=0.1))
    assert not desk.say("validated", batch=1, value=0.2)["stop"]
    assert not desk.say("progress", state="training")["stop"]
    desk.say("validated", batch=2, value=0.09)
    order = desk.say("progress", state="training")
    assert order["stop"]
    assert "target_error" in order["why"]


def test_the_seconds_of_the_campaign_stop_the_trainer() -> None:
    desk = Desk(settings(seconds=30.0))
    desk.wait(20.0)
    assert not desk.say("progress", state="training")["stop"]
    desk.wait(11.0)
    assert desk.say("progress", state="training")["stop"]


def test_a_stop_sends_everybody_home_and_then_the_coordinator_leaves() -> None:
    desk = Desk()
    worker = desk.started()
    given = desk.next(worker)
    desk.beat("a2", "idle")
    assert desk.say("stop", why="Ctrl-C")["kind"] == "stopping"
    assert desk.next(worker, ended(given))["kind"] == "over"
    assert desk.beat("a1", "running")["order"] == "leave"
    assert not desk.state.finished
    assert desk.beat("a1", "left")["order"] == "leave"
    assert desk.beat("a2", "left")["order"] == "leave"
    assert not desk.state.finished
    assert desk.report("0")["stop"]
    assert desk.state.finished
    assert desk.say("progress", state="training")["stop"]
    assert desk.say("validated", batch=1)["stop"]
    assert desk.status()["why"] == "Ctrl-C"


def test_an_agent_that_left_gives_its_simulation_back() -> None:
    desk = Desk()
    desk.next(desk.started())
    assert desk.beat("a1", "left")["order"] == "leave"
    assert desk.simulation(0).state == "queued"


def test_a_lost_agent_does_not_keep_the_coordinator_from_leaving() -> None:
    desk = Desk()
    desk.started()
    desk.say("stop")
    desk.report("0")
    assert not desk.state.finished
    desk.wait(16.0)
    assert desk.state.finished


def test_the_counts_of_the_summary_add_up() -> None:
    desk = completed_campaign(validation=2)
    assert desk.status()["simulations"] == {
        "requested": 3, "completed": 3, "failed": 0, "quarantined": 0,
        "retried": 0, "partial": 0, "running": 0, "queued": 0,
    }  # fmt: skip
    assert desk.state.counters()["simulations_completed"] == 3.0


def test_the_history_is_read_page_by_page_and_survives_a_restart() -> None:
    desk = Desk()
    for batch in range(300):
        desk.say("progress", state="training", batches=batch, note="x" * 900)
    desk.restart()
    desk.say("progress", state="training", batches=300)
    seen: list[int] = []
    since = 0
    while since < desk.status()["count"]["progress"]:
        status = desk.status(progress_since=since)
        seen += [line["batches"] for line in status["progress"]]
        since = status["next"]["progress"]
    assert seen == list(range(301))
    assert desk.status()["trainer"]["batches"] == 300
    assert [line["batches"] for line in desk.status()["progress"]] == list(range(281, 301))


def test_an_entry_that_is_too_large_to_be_shown_is_refused() -> None:
    desk = Desk()
    reply = desk.say("validated", batch=1, picture="x" * 200_000)
    assert reply["kind"] == "refused"
    assert "Write large things to a file" in reply["why"]


def test_faults_of_the_servers_own_processes_are_events() -> None:
    desk = Desk()
    desk.say("fault", process="rank 1", exit_code=-9)
    assert desk.status()["events"][-1]["exit_code"] == -9


def test_the_display_sees_workers_agents_and_shards() -> None:
    desk = Desk()
    worker = desk.started()
    given = desk.next(worker)
    desk.report("0", progress=[[0, given["lease"], 4, True]], counters={"bytes": 5}, blocked=True)
    status = desk.status()
    shown = status["workers"][0]
    assert (shown["worker"], shown["simulation"], shown["steps"]) == (worker, 0, 4)
    assert shown["waits_for_room"]
    assert status["agents"][0]["state"] == "working"
    assert status["shards"]["0"]["counters"] == {"bytes": 5}
    assert status["shards"]["0"]["blocked"]

"""What happens when solvers, workers, agents or the whole campaign fail: one test for each row."""

from __future__ import annotations

from typing import Any

import pytest
from coordinator_desk import Desk, ended, failed, refusal, settings


def test_a_silent_agent_loses_its_worker_and_is_told_to_end_it_when_it_is_back() -> None:
    desk = Desk()
    worker = desk.started()
    given = desk.next(worker)
    desk.wait(14.0)
    assert desk.simulation(0).state == "running"
    desk.wait(2.0)
    assert desk.simulation(0).state == "queued"
    assert desk.beat(worker=worker, state="running")["order"] == "end"
    assert desk.say("hello", worker=worker, agent="a1")["kind"] == "refused"
    assert desk.next(worker, ended(given))["kind"] == "over"
    assert desk.simulation(0).state == "queued"
    assert desk.beat(worker=worker, state="exited", exit_code=-15)["order"] == "start"
    assert desk.simulation(0).faults == 0


def test_an_agent_that_was_started_again_has_lost_its_worker() -> None:
    desk = Desk()
    desk.next(desk.started())
    order = desk.beat(worker="", state="idle", incarnation="another")
    assert order == {"kind": "orders", "order": "start", "worker": "w2"}
    assert desk.simulation(0).state == "queued"


def test_a_repeated_idle_beat_is_given_the_same_worker() -> None:
    desk = Desk()
    first = desk.beat("a1", "idle")
    assert desk.say("beat", agent="a1", worker="", state="idle") == first


def test_a_worker_that_exits_by_its_own_fault_is_counted_and_named() -> None:
    desk = Desk()
    desk.next(desk.started())
    desk.beat(state="exited", exit_code=3, stderr_tail="Traceback: boom", log="/logs/w1.log")
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 1)
    fault = desk.faults()[0]
    assert fault["simulation"] == 0
    assert fault["attempt"] == 1
    assert fault["inputs"] == {"T0": 100.0}
    assert (fault["worker"], fault["log"]) == ("w1", "/logs/w1.log")
    assert "exit code 3" in fault["message"]
    assert "boom" in fault["stderr_tail"]
    assert fault["next_command"].startswith("penstock repeat 0 '{\"T0\": 100.0}' ")


@pytest.mark.parametrize("code", [-9, -15, 137, 143])
def test_a_worker_killed_from_outside_is_not_the_solvers_fault(code: int) -> None:
    desk = Desk(settings(max_attempts=1))
    desk.next(desk.started())
    desk.beat(state="exited", exit_code=code)
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 0)


def test_a_rank_that_mpirun_reports_as_killed_is_not_the_solvers_fault() -> None:
    desk = Desk(settings(max_attempts=1))
    desk.next(desk.started())
    tail = "mpirun noticed that process rank 1 with PID 7 on node vm exited on signal 9 (Killed)."
    desk.beat(state="exited", exit_code=1, stderr_tail=tail)
    assert desk.simulation(0).state == "queued"


@pytest.mark.parametrize("code", [-11, 139, 1, 0])
def test_a_crash_or_an_exit_in_the_middle_is_the_solvers_fault(code: int) -> None:
    desk = Desk()
    desk.next(desk.started())
    desk.beat(state="exited", exit_code=code)
    assert desk.simulation(0).faults == 1


def test_a_simulation_that_fails_max_attempts_times_is_given_up() -> None:
    desk = Desk(settings(train=2, max_attempts=2))
    worker = desk.started()
    first = desk.next(worker)
    second = desk.next(worker, failed(first))
    assert (second["simulation"], second["attempt"]) == (0, 2)
    third = desk.next(worker, failed(second, "diverged again"))
    assert third["simulation"] == 1
    assert desk.simulation(0).state == "failed"
    assert "diverged again" in desk.simulation(0).reason
    assert desk.faults()[-1]["outcome"] == "failed"
    assert desk.report("0")["retired"] == [0]
    counts = desk.status()["simulations"]
    assert (counts["failed"], counts["retried"], counts["running"]) == (1, 1, 1)


def test_a_simulation_whose_workers_are_always_killed_is_given_up_in_the_end() -> None:
    desk = Desk(settings(train=1, max_losses=4))
    for _ in range(4):
        desk.next(desk.started())
        desk.beat(state="exited", exit_code=-9)
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("failed", 0)


def test_an_exception_is_counted_once_though_it_is_told_twice() -> None:
    desk = Desk()
    worker = desk.started()
    given = desk.next(worker)
    desk.say("fail", worker=worker, simulation=0, lease=given["lease"], reason="ValueError: x")
    desk.beat(state="exited", exit_code=1)
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 1)
    assert "ValueError: x" in desk.faults()[0]["message"]


def test_a_worker_that_goes_on_without_a_word_has_failed_that_simulation() -> None:
    desk = Desk()
    worker = desk.started()
    desk.next(worker)
    assert desk.next(worker)["simulation"] == 0
    assert desk.simulation(0).faults == 1


def test_a_stopped_worker_is_ended_and_its_simulation_queued_again() -> None:
    desk = Desk()
    worker = desk.started()
    desk.next(worker)
    assert desk.beat(state="stopped", stopped_s=16.0)["order"] == "end"
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 0)
    assert desk.beat(state="stopped", stopped_s=17.0)["order"] == "end"
    assert desk.beat(state="exited", exit_code=-15)["order"] == "start"
    assert desk.worker_of() != worker


def test_a_worker_without_new_steps_is_hung_and_slow_ones_are_not() -> None:
    desk = Desk(settings(step_deadline_s=100.0))
    given = desk.next(desk.started())
    progress = [given["simulation"], given["lease"]]
    for steps in (1, 2, 3):
        desk.report("0", progress=[[*progress, steps, False]])
        desk.wait(90.0, "a1")
    assert desk.simulation(0).state == "running"
    desk.wait(20.0, "a1")
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 1)
    assert desk.beat(state="running")["order"] == "end"
    assert "step_deadline_s" in desk.faults()[0]["message"]


def test_a_worker_that_waits_for_credit_is_not_hung() -> None:
    desk = Desk(settings(step_deadline_s=10.0, start_deadline_s=5.0))
    given = desk.next(desk.started())
    held = [[given["simulation"], given["lease"], 4, True]]
    for _ in range(50):
        desk.report("0", progress=held)
        desk.wait(1.0, "a1", reporting=False)
    assert desk.simulation(0).state == "running"


def test_a_receiver_that_is_down_does_not_make_its_workers_hung() -> None:
    desk = Desk(settings(step_deadline_s=10.0, start_deadline_s=5.0))
    desk.next(desk.started())
    desk.wait(200.0, "a1", reporting=False)
    assert desk.simulation(0).state == "running"


def test_the_first_step_has_the_longer_of_both_deadlines() -> None:
    desk = Desk(settings(step_deadline_s=10.0, start_deadline_s=60.0))
    given = desk.next(desk.started())
    desk.wait(50.0, "a1")
    assert desk.simulation(0).state == "running"
    desk.report("0", progress=[[0, given["lease"], 1]])
    desk.wait(12.0, "a1")
    assert desk.simulation(0).state == "queued"


def test_a_worker_that_never_says_hello_is_ended() -> None:
    desk = Desk(settings(start_deadline_s=60.0))
    desk.report()
    worker = desk.beat("a1", "idle")["worker"]
    desk.wait(59.0, "a1")
    assert desk.beat()["order"] == "go_on"
    desk.wait(2.0, "a1")
    assert desk.beat(worker=worker)["order"] == "end"


def test_a_worker_that_stops_asking_is_ended() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.say("fail", worker=worker, simulation=0, lease=given["lease"], reason="x")
    desk.wait(102.0, "a1")
    assert desk.beat()["order"] == "end"


def test_a_simulation_that_its_shards_never_confirm_is_done_again() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    again = desk.next(worker, ended(given))
    for _ in range(101):
        desk.report("0", progress=[[1, again["lease"], 1, True]])
        desk.wait(1.0, "a1", reporting=False)
    assert (desk.simulation(0).state, desk.simulation(0).losses) == ("queued", 1)


@pytest.mark.parametrize("kind", ["nan", "range", "physics"])
def test_data_that_no_attempt_can_change_are_quarantined_at_once(kind: str) -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.report("0", refused=[refusal(given, kind)])
    desk.report("0", refused=[refusal(given, kind)])
    assert desk.simulation(0).state == "quarantined"
    assert len(desk.faults()) == 1
    assert "step 7" in desk.faults()[0]["message"]
    assert desk.next(worker, ended(given))["simulation"] == 1
    assert desk.report("0")["retired"] == [0]


def test_a_late_nan_quarantines_what_was_queued_again() -> None:
    desk = Desk()
    worker = desk.started()
    given = desk.next(worker)
    again = desk.next(worker, failed(given))
    assert again["simulation"] == 0
    desk.report("0", refused=[refusal(given, "nan")])
    assert desk.simulation(0).state == "quarantined"
    assert desk.next(worker, ended(again))["simulation"] == 1
    assert desk.simulation(0).state == "quarantined"


@pytest.mark.parametrize("kind", ["shape", "dtype", "undeclared", "layout"])
def test_a_wrong_shape_is_counted_like_a_failure(kind: str) -> None:
    desk = Desk(settings(train=2, max_attempts=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.report("0", refused=[refusal(given, kind)])
    desk.report("0", refused=[refusal(given, kind)])
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 1)
    assert desk.report("0")["superseded"] == [[0, given["lease"]]]
    again = desk.next(worker, {**ended(given), "outcome": "refused"})
    assert (again["simulation"], again["attempt"]) == (0, 2)
    desk.report("0", refused=[refusal(again, kind)])
    assert desk.simulation(0).state == "failed"


def test_a_refusal_that_the_worker_tells_first_waits_for_the_shards_reason() -> None:
    desk = Desk(settings(train=2, max_attempts=1))
    worker = desk.started()
    given = desk.next(worker)
    assert desk.next(worker, {**ended(given), "outcome": "refused"})["simulation"] == 1
    desk.beat(state="exited", exit_code=1)
    assert desk.simulation(0).state == "running"
    desk.report("0", refused=[refusal(given, "nan")])
    assert desk.simulation(0).state == "quarantined"


def test_a_refusal_whose_reason_never_comes_is_a_fault_after_a_while() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.next(worker, {**ended(given), "outcome": "refused", "reason": "who knows"})
    desk.wait(16.0, "a1")
    assert (desk.simulation(0).state, desk.simulation(0).faults) == ("queued", 1)


def test_a_solver_that_does_not_reproduce_itself_gets_a_new_simulation() -> None:
    desk = Desk(settings(train=2))
    worker = desk.started()
    given = desk.next(worker)
    desk.report("0", refused=[refusal(given, "unreproducible")])
    old, new = desk.simulation(0), desk.simulation(2)
    assert (old.state, old.successor, new.predecessor) == ("partial", 2, 0)
    assert (new.parameters, new.seed, new.role) == (old.parameters, old.seed, old.role)
    assert desk.report("0")["retired"] == [0]
    counts = desk.status()["simulations"]
    assert (counts["requested"], counts["partial"]) == (2, 1)


def test_a_solver_that_never_reproduces_itself_is_given_up() -> None:
    desk = Desk(settings(train=1, max_attempts=2))
    worker = desk.started()
    for _ in range(2):
        desk.report("0", refused=[refusal(desk.next(worker), "unreproducible")])
    assert [desk.simulation(n).state for n in (0, 1)] == ["partial", "failed"]


def test_a_command_that_dies_twice_before_any_hello_ends_the_campaign() -> None:
    desk = Desk()
    desk.report()
    desk.beat("a1", "idle")
    dead: dict[str, Any] = {
        "state": "exited",
        "exit_code": 1,
        "stderr_tail": "ImportError: no dolfinx",
    }
    assert desk.beat(**dead)["order"] == "go_on"  # not at once
    desk.wait(1.0)
    assert desk.beat("a1", "idle")["order"] == "start"
    assert desk.beat(**dead)["order"] == "leave"
    status = desk.status()
    assert status["state"] == "stopping"
    assert "ImportError: no dolfinx" in status["why"]


def test_a_command_that_does_not_exist_ends_the_campaign_at_once() -> None:
    desk = Desk()
    desk.beat("a1", "idle")
    tail = "The solver command 'nosuch' could not be started."
    assert desk.beat(state="exited", exit_code=127, stderr_tail=tail)["order"] == "leave"
    assert tail in desk.status()["why"]


def test_dead_starts_after_a_first_success_are_borne_for_longer() -> None:
    desk = Desk(settings(train=3, dead_starts=4))
    desk.next(desk.started())
    desk.beat(state="exited", exit_code=-9)
    for start in range(4):
        assert desk.status()["state"] == "running", start
        desk.wait(11.0)
        assert desk.beat("a1", "idle")["order"] == "start"
        desk.beat(state="exited", exit_code=1)
    assert desk.status()["state"] == "stopping"


def test_a_campaign_in_which_all_simulations_failed_stops_with_the_reason() -> None:
    desk = Desk(settings(train=2, max_attempts=1))
    worker = desk.started()
    second = desk.next(worker, failed(desk.next(worker)))
    assert desk.next(worker, failed(second, "diverged at step 3"))["kind"] == "over"
    status = desk.status()
    assert status["state"] == "stopping"
    assert "diverged at step 3" in status["why"]
    assert desk.report("0")["stop"]


def test_a_solver_that_fails_from_the_beginning_is_not_tried_on_everything() -> None:
    desk = Desk(settings(train=1000, max_attempts=1, failed_at_first=10))
    worker = desk.started()
    answer = desk.next(worker)
    for _ in range(10):
        answer = desk.next(worker, failed(answer))
    assert answer["kind"] == "over"
    assert "first 10 simulations" in desk.status()["why"]


def test_a_request_that_makes_no_sense_is_refused_with_a_sentence() -> None:
    desk = Desk()
    reply = desk.say("report", shard="9", address="tcp://h:1")
    assert reply["kind"] == "refused"
    assert "the shards are 0" in reply["why"]

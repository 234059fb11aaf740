"""The display: from statuses as the coordinator gives them to what a user reads."""

from __future__ import annotations

import io
from typing import Any

import pytest
from coordinator_desk import Desk, ended, settings
from rich.console import Console

from penstock_server.display import Display
from penstock_server.panel import line, panel, time_left
from penstock_server.recent import RECENT_S, Recent

COUNTERS = {"bytes": 3_000_000, "capacity": 400, "stored": 300, "unseen": 100}
SHARE = {"compute": 0.5, "wait_data": 0.3, "validate": 0.05, "other": 0.15}


def campaign(train: int = 4) -> Desk:
    """One simulation is done, one is running, the trainer and the validator have reported."""
    desk = Desk(settings(train=train, validation=1))
    worker = desk.started()
    first = desk.next(worker)
    desk.deliver(first)
    second = desk.next(worker, ended(first))
    progress(desk, batches=10, draws=100)
    desk.say("validated", batch=10, metric="nrmse", value=0.25, baseline=0.98, linear=0.125)
    desk.wait(10.0, "a1", reporting=False)
    assert (second["simulation"], second["lease"]) == (1, 2)
    report(desk, admitted=500)
    desk.report("held-out", counters={**COUNTERS, "admitted_samples": 77, "stored": 77})
    progress(desk, batches=30, draws=300, loss=0.0123)
    return desk


def report(desk: Desk, admitted: int) -> None:
    """Shard 0 has seen 34 steps of simulation 1, lease 2, whose worker waits for credit."""
    counters = {**COUNTERS, "admitted_samples": admitted}
    desk.report("0", counters=counters, progress=[[1, 2, 34, True]])


def progress(desk: Desk, **body: Any) -> None:
    said = {"state": "training", "loss": 0.5, "time_share": SHARE, "seconds": 9.0, **body}
    desk.say("progress", **said)


def shown(renderable: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def remembered(*statuses: dict[str, Any], planned: int | None = None) -> Recent:
    recent = Recent(planned)
    for status in statuses:
        recent.add(status)
    return recent


def test_the_panel_shows_all_that_matters_of_a_running_campaign() -> None:
    desk = campaign()
    before = desk.status()
    desk.wait(10.0, "a1", reporting=False)
    report(desk, admitted=700)
    progress(desk, batches=50, draws=500, loss=0.0123)
    now = desk.status()
    text = shown(panel(now, remembered(before, now, planned=100)))
    assert "heat: training, 20 s" in text
    assert "1 of 5 done, 1 running, 3 queued" in text
    assert "700 received (20/s), 500 drawn (20/s), 6 MB streamed" in text
    assert "200 seen, 100 unseen, 100 free" in text
    assert "computing 50 %" in text
    assert "waiting for data 30 %" in text
    assert "0.0123 after 50 of 100 batches" in text
    assert "0.25 (nrmse); best constant 0.98, linear emulator 0.125" in text
    assert "w1 simulation 1, 34 steps, waits for room" in text


def test_the_panel_says_what_is_waited_for_on_both_sides() -> None:
    desk = campaign()
    spent = {"compute": 70.0, "wait limiter by solver": 12.0, "wait threshold by start": 17.8}
    progress(desk, time_s={**spent, "wait empty by network": 0.2})
    desk.wait(4.0, "a1", reporting=False)
    status = desk.status()
    text = shown(panel(status, remembered(status)))
    assert "waited for the first samples 18 %, the solvers 12 %" in text
    assert "the network" not in text
    assert status["workers_s"]["room"] > 0
    assert "out of credit, no room" in text


def test_the_panel_can_be_drawn_before_anything_has_happened() -> None:
    status = Desk().status()
    text = shown(panel(status, remembered(status)))
    assert "collecting the first samples" in text
    assert "no validation yet" in text
    assert "left" not in text


def test_held_out_samples_are_not_counted_as_received() -> None:
    assert "500 received" in line(campaign().status(), Recent())


def test_failed_simulations_and_full_shards_are_named() -> None:
    desk = Desk(settings(train=2, max_attempts=1))
    worker = desk.started()
    given = desk.next(worker)
    desk.next(worker, {**ended(given), "outcome": "failed", "reason": "diverged"})
    desk.report("0", counters=COUNTERS, blocked=True)
    text = shown(panel(desk.status(), Recent()))
    assert "1 failed" in text
    assert "full: the solvers wait" in text


def test_many_workers_are_summed_up() -> None:
    desk = Desk(settings(train=20))
    for number in range(7):
        desk.next(desk.started(f"a{number}"))
    text = shown(panel(desk.status(), Recent()))
    assert "and 3 more; 7 of 7 busy" in text


def test_a_status_that_comes_twice_changes_nothing() -> None:
    status = campaign().status()
    once, twice = remembered(status), remembered(status, status)
    assert once == twice
    assert list(once.losses) == [(10, 0.5), (30, 0.0123)]


def test_speeds_are_taken_over_the_last_seconds() -> None:
    desk = campaign()
    recent = remembered(desk.status())
    assert recent.per_second("received") is None
    for _ in range(50):
        desk.wait(1.0, "a1", reporting=False)
        recent.add(desk.status())
    desk.wait(1.0, "a1", reporting=False)
    desk.report("0", counters={"admitted_samples": 500 + 200})
    recent.add(desk.status())
    assert recent.per_second("received") == pytest.approx(200 / RECENT_S)


def test_the_time_left_is_that_of_the_slower_of_production_and_training() -> None:
    desk = campaign(train=3)  # 1 of 4 simulations in 10 s: 30 s more
    before = desk.status()
    assert time_left(before, remembered(before)) == pytest.approx(30.0, rel=0.05)
    assert time_left(before, remembered(before, planned=1000)) is None  # no speed yet
    desk.wait(10.0, "a1", reporting=False)
    progress(desk, batches=50, draws=500)
    now = desk.status()
    left = time_left(now, remembered(before, now, planned=1050))
    assert left == pytest.approx(500.0, rel=0.05)  # 2 batches a second


def test_without_a_terminal_a_line_comes_every_few_seconds() -> None:
    file, clock = io.StringIO(), [0.0]
    with Display(Console(file=file, width=40), clock=lambda: clock[0]) as shown_:
        for _ in range(21):
            clock[0] += 0.5
            shown_.on_status(campaign().status())
        shown_.on_message("The coordinator was restarted.")
    lines = file.getvalue().splitlines()
    assert len(lines) == 5  # at 0.5, 5.5 and 10.5 s, the message, and the last state
    assert lines[3] == "The coordinator was restarted."
    assert all(text.isascii() for text in lines)
    assert "batch 30, loss 0.0123" in lines[0]
    assert "error 0.25 (constant 0.98, linear 0.125)" in lines[0]


def test_quiet_says_nothing() -> None:
    file = io.StringIO()
    with Display(Console(file=file), quiet=True) as shown_:
        shown_.on_status(campaign().status())
        shown_.on_message("The coordinator was restarted.")
    assert file.getvalue() == ""


def test_on_a_terminal_the_panel_is_live_and_stays_at_the_end() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, height=40, force_terminal=True, legacy_windows=False)
    with Display(console) as shown_:
        shown_.on_message("Worker w3 died; its simulation is queued again.")
        shown_.on_status(campaign().status())
    assert "heat: training" in file.getvalue()
    assert "Worker w3 died" in file.getvalue()


def test_plain_gives_lines_on_a_terminal_too() -> None:
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=True), plain=True) as shown_:
        shown_.on_status(campaign().status())
    assert "╭" not in file.getvalue()

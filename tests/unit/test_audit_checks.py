"""Every finding of the audit, each from a clean run in which one thing is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from audit_tables import clean, content, kinds, with_draws, with_rows, with_simulation

from penstock_server.audit.findings import UNKNOWN, spell
from penstock_server.audit.tables import Tables, Training
from penstock_server.audit.verdict import audit
from penstock_server.coordinator.records import SETTLED_STATES
from penstock_server.draw_log import checksums

SHAPES = [(1, 1, 1), (2, 1, 1), (2, 2, 1), (4, 3, 1), (4, 2, 2)]  # segment, window, stride


@pytest.mark.parametrize(("length", "window", "stride"), SHAPES)
def test_a_clean_run_has_no_findings_and_three_equal_counts(
    length: int, window: int, stride: int
) -> None:
    found = audit(clean(length, window, stride))
    assert found.findings == []
    assert {check.verdict for check in found.checks} == {"holds"}
    by_name = {c.what: (c.clients, c.shards, c.trainer) for c in found.counts}
    assert by_name["training simulations"] == (3, 3, 3)
    assert by_name["held-out steps"] == (12, 12, 0)
    trained = 18 if (window - 1) * stride < 2 else 12  # the short segments at the ends have none
    assert by_name["training steps"] == (18, 18, trained)
    assert by_name["steps of others"][1] == 3 * length
    assert found.sentence == "Nothing was lost, and nothing is there twice."


# -- production ----------------------------------------------------------------------------------


def test_a_simulation_in_no_settled_state_is_named() -> None:
    for state in ("queued", "running", "ended"):
        run = with_simulation(clean(), 4, state=state)
        assert kinds(run) == {"named": {("unfinished", 4)}}
    for state in SETTLED_STATES - {"completed"}:
        assert kinds(with_simulation(clean(), 4, state=state)) == {}


def test_a_stop_rule_leaves_simulations_and_samples_and_names_them() -> None:
    run = with_simulation(clean(), 4, state="queued")
    assert run.draws is not None
    run = with_draws(run, 1, run.draws[1][:-5])
    run = with_rows(run, "admitted", "1", unmarked(run, "1"))
    assert kinds(run) == {"named": {("unfinished", 4)}, "trained": {("never drawn", 5)}}
    for why, ordered, within in (
        ("batches", False, True), ("stopped", True, True), ("stopped", False, False),
    ):  # fmt: skip
        ended = replace(run.training, why=why, ordered=ordered)
        assert (kinds(replace(run, training=ended)) == {}) == within
    left = audit(replace(run, training=replace(run.training, why="batches"))).untrained
    assert left == {5: [1]}


def unmarked(run: Tables, shard: str) -> np.ndarray:
    """Its ledger without marks of what was drawn."""
    rows = run.admitted[shard].copy()
    rows["drawn"] = rows["settled"] = False
    return rows


def test_a_simulation_that_was_given_up_without_a_reason_is_named() -> None:
    assert kinds(with_simulation(clean(), 5, reason="")) == {"named": {("nameless", 5)}}


def test_a_simulation_that_vanished_from_the_books_is_named() -> None:
    run = clean()
    gone = replace(run, simulations=tuple(s for s in run.simulations if s.id != 4))
    assert ("missing", 4) in kinds(gone)["named"]
    last = replace(run, simulations=run.simulations[:-1], requested=7)
    assert ("missing", 6) in kinds(last)["named"]


@pytest.mark.parametrize(("length", "window", "stride"), SHAPES)
def test_a_step_that_was_never_admitted_is_lost(length: int, window: int, stride: int) -> None:
    run = clean(length, window, stride)
    rows = run.admitted["held-out"]
    lost = with_rows(run, "admitted", "held-out", rows[1:])
    lines = lost.lines
    assert lines is not None
    lost = with_rows(lost, "lines", "held-out", renumbered(lines["held-out"][1:]))
    assert kinds(lost) == {"admitted": {("lost", 0)}}
    (finding,) = audit(lost).findings
    assert f"step {spell(range(length))} was never admitted" in finding.text


def renumbered(lines: np.ndarray) -> np.ndarray:
    found = lines.copy()
    found["ordinal"] = np.arange(1, 1 + len(lines))
    return found


def test_a_completed_simulation_of_which_nothing_came_is_lost() -> None:
    run = clean()
    rows = run.admitted["held-out"]
    run = with_rows(run, "admitted", "held-out", rows[rows["simulation"] != 0])
    assert run.lines is not None
    lines = run.lines["held-out"]
    run = with_rows(run, "lines", "held-out", renumbered(lines[lines["simulation"] != 0]))
    assert kinds(run) == {"admitted": {("lost", 0)}}
    assert kinds(with_simulation(run, 0, steps=None)) == {"admitted": {("lost", 0)}}


def test_a_client_that_counted_otherwise_than_the_shards_is_named() -> None:
    assert kinds(with_simulation(clean(), 2, steps=7))["admitted"] >= {("counts", 2), ("lost", 2)}
    assert kinds(with_simulation(clean(), 2, steps=5))["admitted"] == {("counts", 2)}
    assert kinds(with_simulation(clean(), 2, steps=None)) == {}, "its worker died after its END"


def test_a_segment_in_two_shards_is_there_twice() -> None:
    run = clean()
    rows = np.append(run.admitted["1"], run.admitted["0"][:1])
    assert ("twice", 2) in kinds(with_rows(run, "admitted", "1", rows))["once"]


def test_a_segment_admitted_again_in_the_same_life_is_there_twice() -> None:
    run = clean()
    assert run.lines is not None
    again = np.append(run.lines["0"], run.lines["0"][2:3])
    again["ordinal"][-1] = len(again)
    found = kinds(with_rows(run, "lines", "0", again))["once"]
    assert found == {("twice", 2), ("twice", None)}


def test_a_resumed_run_admits_again_what_its_checkpoint_did_not_hold() -> None:
    run = clean()
    assert run.lines is not None
    rows = run.lines["0"]
    held = 3  # by the checkpoint; the rest came in the first session too, and again
    second = rows[held:].copy()
    resumed = with_rows(run, "lines", "0", np.concatenate([rows[:-1], second]))
    assert kinds(resumed) == {}
    # One that the checkpoint held: the shard's ledger should have dropped it.
    second[0] = rows[0]
    second["ordinal"][0] = held + 1
    twice = with_rows(run, "lines", "0", np.concatenate([rows[:-1], second]))
    assert kinds(twice) == {}, "the place that it stands for is not lacking"
    more = np.append(rows[held:], rows[:1])
    more["ordinal"] = np.arange(held + 1, held + 1 + len(more))
    twice = with_rows(run, "lines", "0", np.concatenate([rows[:-1], more]))
    assert kinds(twice) == {"once": {("twice", None)}}


def test_a_journal_and_a_ledger_that_differ_are_named() -> None:
    run = clean()
    assert run.lines is not None
    rows = run.lines["1"]
    missing = with_rows(run, "lines", "1", np.delete(rows, 2))
    assert ("journal", None) in kinds(missing)["once"]
    last = with_rows(run, "lines", "1", rows[:-1])
    assert kinds(last) == {"once": {("journal", None)}}
    killed = replace(last, training=Training(False, "", 0))
    assert "once" not in kinds(killed), "a killed receiver leaves one line to the next one"
    foreign = rows.copy()
    foreign["segment"][-1] = 77
    assert ("journal", 5) in kinds(with_rows(run, "lines", "1", foreign))["once"]


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "window", "stride"), SHAPES)
def test_a_sample_that_was_never_drawn_is_named(length: int, window: int, stride: int) -> None:
    run = clean(length, window, stride)
    assert run.draws is not None
    rows = run.draws[0]
    first = rows[0]
    others = (rows["simulation"] != first["simulation"]) | (rows["step"] != first["step"])
    run = with_draws(with_rows(run, "admitted", "0", unmarked(run, "0")), 0, rows[others])
    assert kinds(run) == {"trained": {("never drawn", 2)}}
    assert audit(run).untrained == {}


def test_what_was_drawn_and_never_admitted_is_named() -> None:
    run = clean()
    assert run.draws is not None
    for simulation, step in ((2, 17), (123_456_789_012, 0)):
        rows = np.append(run.draws[0], run.draws[0][-1:])
        rows["simulation"][-1], rows["step"][-1] = simulation, step
        rows["inputs"][-1] = rows["inputs"][0]
        assert kinds(with_draws(run, 0, rows))["drawn"] == {("never admitted", simulation)}


def test_a_resumption_went_back_on_what_was_drawn_of_a_simulation_that_then_failed() -> None:
    run = clean()
    rows = run.admitted["0"]
    rest = with_rows(run, "admitted", "0", rows[rows["simulation"] != 4])
    assert "drawn" not in kinds(rest), "the journal tells of it"
    without = replace(rest, lines=None, stored=None)
    assert kinds(without)["drawn"] == {("never admitted", 4)}
    assert "drawn" not in kinds(replace(without, resumed=True))


def test_a_log_that_lacks_draws_is_named() -> None:
    run = clean()
    assert run.draws is not None
    shorter = replace(run, draws=(run.draws[0][:-1], run.draws[1]))
    assert kinds(shorter) == {"logged": {("log", None)}}
    unfinished = replace(shorter, training=replace(run.training, done=False, draws=0))
    assert "logged" not in kinds(unfinished)


def test_a_record_out_of_order_is_named() -> None:
    run = clean()
    assert run.draws is not None
    for at, batch in ((5, 77), (9, 0)):
        rows = run.draws[1].copy()
        rows["batch"][at] = batch
        assert kinds(with_draws(run, 1, rows)) == {"logged": {("log", None)}}


def test_what_a_ledger_holds_for_drawn_and_the_log_has_not_is_named() -> None:
    run = clean()
    assert run.draws is not None
    rows = run.draws[1]
    run = with_draws(run, 1, rows[(rows["simulation"] != 3) | (rows["step"] != 1)])
    assert kinds(run) == {"trained": {("never drawn", 3)}, "logged": {("log", 3)}}


def test_a_sample_with_the_parameters_of_another_is_named() -> None:
    run = clean()
    assert run.draws is not None
    rows = run.draws[0].copy()
    own, other = rows["simulation"] == 2, rows["simulation"] == 3
    rows["inputs"][np.flatnonzero(own)[0]] = rows["inputs"][np.flatnonzero(other)[0]]
    assert kinds(with_draws(run, 0, rows)) == {"logged": {("inputs", 2)}}


# -- roles ---------------------------------------------------------------------------------------


def test_a_held_out_simulation_that_was_drawn_is_named() -> None:
    run = clean()
    assert run.draws is not None
    rows = run.draws[0].copy()
    rows["simulation"][-1] = 1
    found = kinds(with_draws(run, 0, rows))
    assert found["held out"] == {("held out", 1)}
    assert found["drawn"] == {("never admitted", 1)}, "by no shard that feeds training"


def test_a_held_out_simulation_under_another_id_is_found_by_its_parameters() -> None:
    run = clean()
    assert run.draws is not None
    rows = run.draws[0].copy()
    rows["inputs"][0] = checksums(np.array([run.simulations[0].parameters]))[0]
    assert kinds(with_draws(run, 0, rows))["held out"] == {("held out", 0)}


def test_a_role_in_a_shard_of_another_is_named() -> None:
    run = clean()
    rows = np.append(run.admitted["0"], run.admitted["held-out"][:1])
    moved = with_rows(run, "admitted", "0", rows)
    assert kinds(moved)["held out"] == {("held out", 0)}
    trained = with_simulation(run, 1, role="train")
    assert ("held out", 1) in kinds(trained)["held out"]


def test_roles_that_share_an_id_or_parameters_are_named() -> None:
    run = clean()
    both = replace(run, simulations=(*run.simulations, replace(run.simulations[1], role="train")))
    assert ("roles", 1) in kinds(both)["disjoint"]
    alike = with_simulation(run, 0, parameters=run.simulations[3].parameters)
    assert kinds(alike) == {"disjoint": {("roles", 0)}}
    by_field = audit(replace(alike, input_fields=True))
    assert by_field.clean, "their input fields may differ"
    assert "disjoint" in by_field.sentence


# -- contents ------------------------------------------------------------------------------------


def test_another_content_when_admitted_again_is_named() -> None:
    run = clean()
    assert run.lines is not None
    second = run.lines["1"][2:].copy()
    second["checksum"][1] += 1
    again = with_rows(run, "lines", "1", np.concatenate([run.lines["1"], second]))
    simulation = int(second["simulation"][1])
    assert kinds(again)["contents"] == {("contents", simulation)}


@pytest.mark.parametrize(("length", "window", "stride"), SHAPES)
def test_another_content_in_the_rank_than_in_the_shard_is_named(
    length: int, window: int, stride: int
) -> None:
    run = clean(length, window, stride)
    assert run.draws is not None
    rows = run.draws[0].copy()
    rows["content"][0] += 1
    found = kinds(with_draws(run, 0, rows))
    assert found == {"contents": {("contents", 2)}}, "the same sample was drawn again, unharmed"
    rows["content"] = 0
    assert kinds(with_draws(run, 0, rows)) == {}, "no checksums were taken"


def test_another_content_in_the_data_set_is_named() -> None:
    run = clean(2)
    assert run.stored is not None
    stored = run.stored.copy()
    stored["checksum"][-1] = content(99, 99)
    assert kinds(replace(run, stored=stored)) == {"contents": {("contents", 5)}}


# -- what is not known ---------------------------------------------------------------------------


def test_without_log_and_journals_the_audit_says_what_it_does_not_know() -> None:
    found = audit(replace(clean(), draws=None, lines=None, stored=None))
    assert found.clean
    unknown = {check.name for check in found.checks if check.verdict == UNKNOWN}
    assert unknown == {"once", "trained", "drawn", "logged", "held out", "contents"}
    assert all(name in found.sentence for name in unknown)
    assert [count.trainer for count in found.counts] == [None] * len(found.counts)


def test_a_run_that_never_began_can_be_judged() -> None:
    run = clean()
    empty = {shard: rows[:0] for shard, rows in run.admitted.items()}
    lines = {shard: rows[:0] for shard, rows in (run.lines or {}).items()}
    waiting = tuple(replace(s, state="queued", steps=None) for s in run.simulations)
    begun = replace(run, admitted=empty, lines=lines, draws=(run.all_draws[:0],) * 2, stored=None,
                    simulations=waiting, training=Training(False, "", 0))  # fmt: skip
    assert kinds(begun) == {"named": {("unfinished", s.id) for s in run.simulations}}


def test_numbers_are_spelt_as_ranges() -> None:
    assert spell([3]) == "3"
    assert spell([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert spell(range(0, 40, 2)) == "0, 2, 4, 6, 8 and 15 more"

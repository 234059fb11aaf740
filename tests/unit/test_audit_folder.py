"""A run's folder is read as it was written, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from audit_run import CAMPAIGN, finished_run, write_ledger
from audit_tables import clean
from typer.testing import CliRunner

from penstock_server import cli, run_folder
from penstock_server.audit import AuditError, audit, read_tables
from penstock_server.draw_log import DRAW
from penstock_server.ledger import Ledger
from penstock_server.report.reading import read_run
from penstock_server.report.simulation_sections import losses_section


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "runs" / "small" / "20260101-000000-abcd")


def same(one: np.ndarray, other: np.ndarray, *columns: str) -> bool:
    order = list(columns)
    return bool(np.array_equal(np.sort(one, order=order), np.sort(other, order=order)))


def test_the_tables_are_read_as_they_were_written(run: Path) -> None:
    tables, expected = read_tables(run), clean(2, 2)
    assert tables.simulations == expected.simulations
    assert (tables.training, tables.requested) == (expected.training, expected.requested)
    assert (tables.segment_steps, tables.window, tables.resumed) == (2, 2, False)
    assert tables.draws is not None
    assert tables.lines is not None
    assert expected.draws is not None
    assert expected.lines is not None
    assert tables.admitted.keys() == expected.admitted.keys()
    for shard, rows in expected.admitted.items():
        assert same(tables.admitted[shard], rows, "simulation", "segment")
        assert np.array_equal(tables.lines[shard], expected.lines[shard])
    for mine, theirs in zip(tables.draws, expected.draws, strict=True):
        assert np.array_equal(mine, theirs)
    assert audit(tables).clean


def test_half_a_record_at_the_end_is_left_out(run: Path) -> None:
    for name in ("draws-0.bin", "admissions-1.bin"):
        with (run / name).open("ab") as file:
            file.write(b"x" * 13)
    assert audit(read_tables(run)).clean


def test_what_was_not_logged_is_unknown(run: Path) -> None:
    for path in [*run.glob("draws-*.bin"), *run.glob("admissions-*.bin")]:
        path.unlink()
    tables = read_tables(run)
    assert tables.draws is None
    assert tables.lines is None
    assert audit(tables).clean


@pytest.mark.parametrize("file", ["draws-1.bin", "admissions-0.bin", "ledgers/ledger-1"])
def test_a_folder_that_lacks_one_of_several_files_is_damaged(run: Path, file: str) -> None:
    (run / file).unlink()
    with pytest.raises(AuditError, match=rf"is damaged: .*{file} is missing\."):
        read_tables(run)


def test_a_ledger_that_is_torn_or_altered_is_damaged(run: Path) -> None:
    path = run / "ledgers" / "ledger-0"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(AuditError, match="ledger-0 is damaged: it is no whole number"):
        read_tables(run)
    path.write_bytes(b"\xff" * 8 + whole[8:])
    with pytest.raises(AuditError, match="ledger-0 is damaged"):
        read_tables(run)


def test_a_database_that_is_none_or_missing_is_refused(run: Path) -> None:
    (run / "coordinator.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(AuditError, match=r"coordinator.sqlite is damaged or of another version"):
        read_tables(run)
    (run / "coordinator.sqlite").unlink()
    with pytest.raises(AuditError, match=r"has no coordinator.sqlite"):
        read_tables(run)


def test_a_folder_that_is_no_run_or_a_running_one_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"is not a run: it has no campaign\.toml"):
        read_tables(tmp_path)
    with run_folder.reopen(run).lock(), pytest.raises(AuditError, match="is still running"):
        read_tables(run)


def test_a_campaign_of_another_mode_or_none_is_refused(run: Path) -> None:
    (run / "campaign.toml").write_text('mode = "store"\n' + CAMPAIGN)
    with pytest.raises(AuditError, match='has mode = "store"'):
        read_tables(run)
    (run / "campaign.toml").write_text("name = ")
    with pytest.raises(AuditError, match="is not valid TOML"):
        read_tables(run)


def test_a_killed_run_is_read_from_memory_while_that_is_there(run: Path) -> None:
    scratch = run_folder.reopen(run).scratch
    try:
        for path in (run / "ledgers").iterdir():
            there = scratch / path.name.replace("ledger", "shard")
            there.mkdir(parents=True)
            shutil.move(path, there / "ledger")
        assert audit(read_tables(run)).clean
    finally:
        shutil.rmtree(scratch)


def test_a_killed_run_is_read_from_its_journals_and_its_checkpoint_else(run: Path) -> None:
    shutil.rmtree(run / "ledgers")
    found = audit(read_tables(run))
    assert found.clean, found.findings
    for path in run.glob("admissions-*.bin"):
        path.unlink()
    with pytest.raises(AuditError, match=r"neither ledgers nor journals.* penstock run --resume"):
        read_tables(run)


def test_a_ledger_of_many_segments_is_read_whole(tmp_path: Path) -> None:
    rows = np.zeros(1500, clean().admitted["0"].dtype)
    rows["simulation"], rows["segment"] = 7, np.arange(1500)
    rows["n_steps"], rows["drawn"] = 1500, rows["segment"] % 3 == 0
    rows["settled"] = rows["drawn"]
    write_ledger(tmp_path / "ledger", rows)
    found = Ledger(tmp_path / "ledger", writable=False).table()
    assert np.array_equal(found, rows)


def test_the_report_of_a_run_has_the_verdict(run: Path) -> None:
    (run / "summary.json").write_text("{}")
    told = read_run(run)
    assert told.audit == "Nothing was lost, and nothing is there twice."
    (text,) = [block for block in losses_section(told).blocks if "Audit" in str(block)]
    assert told.audit in str(text)
    (run / "ledgers" / "ledger-1").unlink()
    assert read_run(run).audit.startswith("not possible. The run")


# -- the command ---------------------------------------------------------------------------------


def penstock(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["audit", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_clean_run_is_exit_code_0_with_a_line_for_each_promise(run: Path) -> None:
    code, output = penstock(str(run))
    assert code == 0, output
    assert output.count("  holds ") == 9
    assert "Nothing was lost, and nothing is there twice." in output
    by_id, _ = penstock(run.name, "--runs", str(run.parents[1]))
    assert by_id == 0


def test_findings_are_exit_code_1_and_the_first_twenty_are_named(run: Path) -> None:
    rows = np.fromfile(run / "draws-0.bin", DRAW)
    rows["inputs"] += 1
    rows["simulation"][-1] = 1
    rows.tofile(run / "draws-0.bin")
    code, output = penstock(str(run))
    assert code == 1
    assert "broken  held-out simulations were never trained on" in output
    assert "held out: Simulation 1 (test) was trained on, 1 times." in output
    many = np.arange(1000, 1030)
    foreign = np.repeat(rows[-1:], len(many))
    foreign["simulation"] = many
    np.append(rows, foreign).tofile(run / "draws-0.bin")
    output = penstock(str(run))[1]
    findings = output[output.index("Findings") :].splitlines()
    shown = [line for line in findings if line.startswith("  ")]
    assert 5 < len(shown) <= 21
    assert sum("never admitted:" in line for line in shown) > 1
    assert sum("held out:" in line for line in shown) == 1, "few of one kind are not pushed out"
    assert "more; --json has all" in output


def test_json_has_everything(run: Path) -> None:
    rows = np.fromfile(run / "draws-1.bin", DRAW)
    rows[:-1].tofile(run / "draws-1.bin")
    code, output = penstock(str(run), "--json")
    told = json.loads(output)
    assert (code, told["format"], told["clean"]) == (1, "penstock-audit-1", False)
    (broken,) = [check for check in told["checks"] if check["verdict"] == "broken"]
    (finding,) = broken["findings"]
    assert (broken["name"], finding["kind"], finding["simulation"]) == ("logged", "log", None)
    assert told["run"] == run.name
    assert len(told["draws"]["ranks"]) == 2
    assert len(told["draws"]["all"]) == 64


def test_what_a_stop_rule_left_is_named_and_no_finding(run: Path) -> None:
    with sqlite3.connect(run / "coordinator.sqlite") as database:
        database.execute("""UPDATE journal SET body = replace(body, 'drained', 'batches')""")
    rows = np.fromfile(run / "draws-0.bin", DRAW)
    told = json.loads(penstock(str(run), "--json")[1])
    assert (told["clean"], told["untrained_by_budget"]) == (True, {})
    others = (rows["simulation"] != 4) | (rows["step"] != 0)
    rows[others].tofile(run / "draws-0.bin")
    path = run / "ledgers" / "ledger-0"
    admitted = read_tables(run).admitted["0"].copy()
    admitted["drawn"] = False
    write_ledger(path, admitted)
    with sqlite3.connect(run / "coordinator.sqlite") as database:
        n = len(rows[others]) + len(np.fromfile(run / "draws-1.bin", DRAW))
        database.execute(f"UPDATE journal SET body = json_set(body, '$.draws', {n})")
    code, output = penstock(str(run))
    assert code == 0, output
    assert "simulation 4: sample 0" in output


def test_what_cannot_be_audited_is_exit_code_2_and_a_sentence(run: Path, tmp_path: Path) -> None:
    code, output = penstock("nowhere", "--runs", str(tmp_path))
    assert code == 2
    assert "There is no run nowhere" in output
    with run_folder.reopen(run).lock():
        code, output = penstock(str(run))
    assert code == 2
    assert "is still running" in output
    (run / "ledgers" / "ledger-0").unlink()
    code, output = penstock(str(run))
    assert code == 2
    assert "is damaged" in output

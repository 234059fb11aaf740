"""`penstock audit` of whole campaigns: clean, and with one thing changed afterwards."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from whole import Started, check_admissions, write_campaign

from penstock_server import cli
from penstock_server.admission_journal import LINE
from penstock_server.audit import Audit, audit, read_tables
from penstock_server.draw_log import DRAW, read_draws

pytestmark = pytest.mark.timeout(300)


def changed(run: Path, copy: Path, file: str, dtype: np.dtype, at: int, **values: int) -> Audit:
    """The audit of a copy in which one record of a file has other values."""
    shutil.copytree(run, copy)
    rows = np.fromfile(copy / file, dtype)
    for name, value in values.items():
        rows[name][at] = value
    rows.tofile(copy / file)
    return audit(read_tables(copy))


def broken(found: Audit) -> dict[str, set[str]]:
    """check -> kinds of its findings"""
    return {c.name: {finding.kind for finding in c.findings} for c in found.checks if c.findings}


def test_a_campaign_is_clean_and_what_is_changed_in_it_is_found(
    tmp_path: Path, start: Started
) -> None:
    run = start(write_campaign(tmp_path, ranks=2), "--set", 'keep="all"')
    assert run.finish(200) == 0, run.output
    check_admissions(run.folder, simulations=33, steps=20)
    told = CliRunner().invoke(cli.app, ["audit", str(run.folder)])
    assert told.exit_code == 0, told.output
    assert "660 stored segments" in told.output
    assert "Nothing was lost, and nothing is there twice." in told.output
    draws = [read_draws(run.folder / f"draws-{rank}.bin") for rank in range(2)]
    assert sum(map(len, draws)) == run.summary["samples"]["trained_total"]

    folder = run.folder
    held_out = changed(folder, tmp_path / "a", "draws-0.bin", DRAW, 5, simulation=1)
    assert broken(held_out).keys() >= {"held out", "drawn"}
    other = changed(folder, tmp_path / "b", "draws-1.bin", DRAW, 7, content=1)
    assert broken(other) == {"contents": {"contents"}}
    line = changed(folder, tmp_path / "c", "admissions-0.bin", LINE, 9, segment=7777)
    assert broken(line)["once"] == {"journal"}
    stored = changed(folder, tmp_path / "d", "admissions-1.bin", LINE, 9, checksum=1)
    assert broken(stored) == {"contents": {"contents"}}
    ledger = tmp_path / "e"
    shutil.copytree(folder, ledger)
    shutil.copyfile(folder / "ledgers/ledger-1", ledger / "ledgers/ledger-0")
    assert broken(audit(read_tables(ledger))).keys() == {"admitted", "once"}


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_leaves_a_clean_audit(tmp_path: Path, start: Started) -> None:
    run = start(write_campaign(tmp_path, "--delay-ms", "5", simulations=60, ranks=2))
    run.wait_for(lambda: run.batches() > 30, 120)
    os.kill(run.pids()["rank-1"], signal.SIGKILL)
    assert run.finish(200) == 0, run.output
    assert "all ranks go back to" in run.output
    check_admissions(run.folder, simulations=63, steps=20)

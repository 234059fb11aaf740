"""The command line: exit codes, sentences instead of tracebacks, and quick starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from campaigns import SMALL
from click.testing import Result
from typer.testing import CliRunner

from penstock_server import cli
from penstock_server.config import Campaign

SUMMARY: dict[str, Any] = {
    "name": "small",
    "simulations": {"requested": 4, "completed": 4, "failed": 0, "retried": 0},
    "samples": {"admitted": 400, "trained_unique": 400, "trained_total": 500},
    "batches": 50,
    "throughput": {"unique_per_s": 40.0, "draws_per_s": 50.0},
    "time_share": {"compute": 0.5, "wait_data": 0.25, "validate": 0.125, "other": 0.125},
    "validation": {"metric": "nrmse", "value": 0.03, "baseline": 0.9, "linear": 0.2},
    "bytes": {"streamed": 6_553_600, "written_fields": 0},
    "seconds": 75.0,
}


@dataclass(frozen=True)
class Outcome:
    summary: dict[str, Any]
    folder: Path
    ok: bool


class CampaignFailed(RuntimeError):
    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


class Supervisor:
    """Stands in for the module penstock_server.supervisor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("penstock_server.supervisor")
        module.__dict__.update(run_campaign=self.run_campaign, CampaignFailed=CampaignFailed)
        monkeypatch.setitem(sys.modules, "penstock_server.supervisor", module)
        self.calls: list[tuple[Campaign, Path, Path | None]] = []
        self.answer: Callable[[Path], Outcome] = lambda runs: Outcome(SUMMARY, runs, True)

    def run_campaign(
        self,
        campaign: Campaign,
        runs: Path,
        *,
        resume: Path | None = None,
        on_status: Callable[[dict[str, Any]], None],
        on_message: Callable[[str], None],
    ) -> Outcome:
        self.calls.append((campaign, runs, resume))
        on_message("Worker w3 died; its simulation is queued again.")
        return self.answer(runs)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    return Supervisor(monkeypatch)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(SMALL)
    return tmp_path


def penstock(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def earlier_run(runs: Path) -> Path:
    folder = runs / "small" / "20260101-000000-abcd"
    folder.mkdir(parents=True)
    (folder / "campaign.toml").write_text(SMALL)
    return folder


def test_a_run_ends_with_its_figures_and_where_its_files_are(
    here: Path, supervisor: Supervisor
) -> None:
    (here / "runs").mkdir()
    (here / "runs" / "picture.png").touch()
    result = penstock("run", "c.toml")
    assert result.exit_code == 0, result.output
    assert "Worker w3 died; its simulation is queued again." in result.output
    assert "0.03  network" in result.output
    assert "0.9  best constant" in result.output
    assert "0.2  linear emulator" in result.output
    assert "4 of 4 completed, 0 failed" in result.output
    assert "40 new samples, 50 draws" in result.output
    assert "waiting for data 25 %" in result.output
    assert "picture: runs/picture.png" in result.output
    assert "model:   none was made" in result.output


def test_overrides_reach_the_campaign(here: Path, supervisor: Supervisor) -> None:
    penstock("run", "c.toml", "--set", "training.ranks=2", "--set", "seed=7", "--runs", "else")
    ((campaign, runs, resume),) = supervisor.calls
    assert (campaign.training.ranks, campaign.seed) == (2, 7)
    assert (runs, resume) == (Path("else"), None)


def test_quiet_leaves_only_the_end(here: Path, supervisor: Supervisor) -> None:
    output = penstock("run", "c.toml", "--quiet").output
    assert "Worker w3 died" not in output
    assert "best constant" in output


@pytest.mark.parametrize("by_id", [True, False])
def test_an_earlier_run_is_found_by_its_folder_or_its_id(
    here: Path, supervisor: Supervisor, by_id: bool
) -> None:
    folder = earlier_run(here / "runs")
    result = penstock("run", "--resume", folder.name if by_id else str(folder))
    assert result.exit_code == 0, result.output
    ((campaign, _, resume),) = supervisor.calls
    assert campaign.name == "small"
    assert resume is not None
    assert resume.resolve() == folder


def test_a_run_that_is_not_there_is_a_sentence_with_the_newest(
    here: Path, supervisor: Supervisor
) -> None:
    folder = earlier_run(here / "runs")
    result = penstock("run", "c.toml", "--resume", "nothing")
    assert result.exit_code == 2
    assert "There is no run nothing here" in result.output
    assert folder.name in result.output


def test_run_without_campaign_and_resume_says_what_to_give(here: Path) -> None:
    result = penstock("run")
    assert result.exit_code == 2
    assert "Give a campaign file" in result.output


def test_a_failed_campaign_is_a_sentence_and_the_end_of_stderr(
    here: Path, supervisor: Supervisor
) -> None:
    def fail(runs: Path) -> Outcome:
        raise CampaignFailed("The solver does not start.", "ImportError: no module [named] ufl")

    supervisor.answer = fail
    result = penstock("run", "c.toml")
    assert result.exit_code == 1
    assert "penstock: The solver does not start." in result.output
    assert "ImportError: no module [named] ufl" in result.output
    assert "Traceback" not in result.output


def test_a_run_that_is_not_complete_fails(here: Path, supervisor: Supervisor) -> None:
    supervisor.answer = lambda runs: Outcome(SUMMARY, runs, False)
    result = penstock("run", "c.toml")
    assert result.exit_code == 1
    assert "did not complete" in result.output


def test_ctrl_c_is_130_and_names_the_run_to_go_on_with(here: Path, supervisor: Supervisor) -> None:
    folder = earlier_run(here / "runs")

    def interrupt(runs: Path) -> Outcome:
        raise KeyboardInterrupt

    supervisor.answer = interrupt
    result = penstock("run", "c.toml")
    assert result.exit_code == 130
    assert f"penstock run --resume {folder.relative_to(here)}" in result.output


def test_a_defect_of_our_own_keeps_its_traceback(here: Path, supervisor: Supervisor) -> None:
    def defect(runs: Path) -> Outcome:
        raise ValueError("an index is wrong")

    supervisor.answer = defect
    result = penstock("run", "c.toml")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_campaign_is_exit_code_2_and_a_sentence(
    here: Path, supervisor: Supervisor, command: str
) -> None:
    (here / "c.toml").write_text(SMALL.replace("batch_size", "batch_sise"))
    result = penstock(command, "c.toml")
    assert result.exit_code == 2
    assert "Unknown key `batch_sise`" in result.output
    assert "Did you mean batch_size?" in result.output
    assert supervisor.calls == []


def test_a_solver_that_is_not_there_fails_before_anything_starts(
    here: Path, supervisor: Supervisor
) -> None:
    result = penstock("run", "c.toml", "--set", 'solver.command=["./nowhere"]')
    assert result.exit_code == 1
    assert "./nowhere was not found" in result.output
    assert supervisor.calls == []


def test_a_reservoir_that_does_not_fit_is_refused_before_anything_starts(
    here: Path, supervisor: Supervisor
) -> None:
    result = penstock("run", "c.toml", "--set", "reservoir.capacity=1000000000000")
    assert result.exit_code == 1
    assert "1,000,000,000,000 samples x 4.1 kB" in result.output
    assert supervisor.calls == []


def test_check_is_0_for_what_can_run_and_1_for_what_cannot(here: Path) -> None:
    result = penstock("check", "c.toml", "--draws-per-second", "500")
    assert result.exit_code == 0, result.output
    assert "the campaign small is valid" in result.output
    assert "at 500 draws per second training takes 400 new" in result.output
    result = penstock("check", "c.toml", "--set", "reservoir.capacity=1000000000000")
    assert result.exit_code == 1
    assert "does not fit" in result.output


def test_try_without_a_command_says_what_to_give() -> None:
    result = penstock("try")
    assert result.exit_code == 1
    assert "There is nothing to try" in result.output


def test_try_passes_options_behind_the_dashes_to_the_program() -> None:
    result = penstock("try", "--seconds", "5", "--", "./nowhere", "--seconds", "9")
    assert result.exit_code == 1
    assert "The command ./nowhere was not found" in result.output


@pytest.mark.parametrize("command", ["run", "check", "demo", "doctor", "try"])
def test_every_command_has_a_help_with_an_example(command: str) -> None:
    result = penstock(command, "--help")
    assert result.exit_code == 0
    assert f"\n    penstock {command}" in result.output
    assert "Exit code" in result.output or "exit code" in result.output


def test_the_entry_point_returns_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, code in ((["--version"], 0), (["frobnicate"], 2), (["try"], 1)):
        monkeypatch.setattr(sys, "argv", ["penstock", *arguments])
        assert cli.main() == code


def test_help_and_check_import_nothing_heavy(here: Path) -> None:
    program = (
        "import json, sys; from penstock_server import cli; sys.argv = ['penstock', 'check', "
        "'c.toml']; assert cli.main() == 0; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "ray", "scipy", "matplotlib", "h5py"}

"""`penstock compare` on the command line: refusals before anything starts, and the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import SMALL
from compare_fakes import FakeRunner, FakeScores
from typer.testing import CliRunner

from penstock_server import cli, compare


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--arms", "online,offline-many"], "An arm is online"),
        (["--small", "500"], "needs 500 simulations"),
        ([], "design.validation and design.test"),  # the file has no test simulations
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    campaign: Path, tmp_path: Path, words: list[str], why: str
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(cli.app, ["compare", str(campaign), "--out", str(out), *words])
    assert done.exit_code == 1
    assert why in " ".join(done.output.split())
    assert not out.exists()


def test_a_comparison_ends_with_tables_and_the_paths_of_its_files(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = FakeRunner()
    monkeypatch.setattr(compare, "ProcessRunner", lambda: runner)
    monkeypatch.setattr(compare, "StoredScores", FakeScores)
    words = ["--set", "design.test=8", "--seeds", "1", "--no-tune", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, ["compare", str(campaign), *words])
    assert done.exit_code == 0, done.output
    assert [c.mode for c in runner.ran] == ["online", "offline", "offline"]
    for name in ("comparison.md", "comparison.png", "result.json"):
        assert (tmp_path / "out" / name).is_file()
        assert name in done.output

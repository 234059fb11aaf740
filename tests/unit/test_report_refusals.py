"""What is no finished run, damaged or too new is refused in one sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_run import finished_run, write
from typer.testing import CliRunner

from penstock_server import cli, run_folder
from penstock_server.report import ReportError, read_run, write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    return folder


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"is not a run: it has no campaign\.toml"):
        read_run(tmp_path)


def test_a_running_run_is_refused(run: Path) -> None:
    with (
        run_folder.reopen(run).lock(),
        pytest.raises(ReportError, match=r"is still running.*Wait for it"),
    ):
        read_run(run)
    assert read_run(run).name == "small"


def test_a_killed_run_is_refused_with_the_way_to_go_on(run: Path) -> None:
    (run / "summary.json").unlink()
    with pytest.raises(ReportError, match=r"penstock run --resume .*run$"):
        read_run(run)


@pytest.mark.parametrize("file", ["summary.json", "validation.json", "drawn.json"])
def test_torn_json_is_refused(run: Path, file: str) -> None:
    text = (run / file).read_text()
    (run / file).write_text(text[: len(text) // 2])
    with pytest.raises(ReportError, match=f"{file} is damaged"):
        read_run(run)
    (run / file).write_text("[1, 2]")
    with pytest.raises(ReportError, match=f"{file} is damaged: it should hold a JSON object"):
        read_run(run)


def test_files_of_a_newer_version_are_refused(run: Path) -> None:
    drawn = json.loads((run / "drawn.json").read_text())
    write(run / "drawn.json", {**drawn, "format": "penstock-drawn-1"})
    assert read_run(run).drawn is not None
    write(run / "drawn.json", {**drawn, "format": "penstock-drawn-2"})
    with pytest.raises(ReportError, match=r"'penstock-drawn-2'.*use the version that made the run"):
        read_run(run)


def test_a_torn_history_is_refused_with_its_line(run: Path) -> None:
    with (run / "history.csv").open("a") as file:
        file.write("4.0,40")
    with pytest.raises(ReportError, match=r"line 6 has 2 values, but the first line names 10"):
        read_run(run)
    text = (run / "history.csv").read_text().splitlines()[:5]
    (run / "history.csv").write_text("\n".join([*text[:4], text[4].replace("0.1", "O.1")]))
    with pytest.raises(ReportError, match=r"line 5 has 'O.1' for loss, no number"):
        read_run(run)
    (run / "history.csv").write_text("")
    with pytest.raises(ReportError, match="first line should name the columns"):
        read_run(run)


def test_damaged_or_newer_examples_are_refused(run: Path) -> None:
    content = (run / "examples.npz").read_bytes()
    (run / "examples.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ReportError, match=r"examples.npz is damaged"):
        read_run(run)
    (run / "examples.npz").write_bytes(content[:1000] + b"\0" * 200 + content[1200:])
    with pytest.raises(ReportError, match=r"examples.npz is damaged"):
        read_run(run)
    np.savez(run / "examples.npz", format=np.array("penstock-examples-2"))
    with pytest.raises(ReportError, match=r"'penstock-examples-1'.*'penstock-examples-2'"):
        read_run(run)


def test_a_database_that_is_none_is_refused(run: Path) -> None:
    (run / "coordinator.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ReportError, match=r"coordinator.sqlite is damaged or of another version"):
        read_run(run)


def test_a_torn_campaign_file_is_refused(run: Path) -> None:
    (run / "campaign.toml").write_text("name = ")
    with pytest.raises(ReportError, match=r"campaign.toml is damaged"):
        read_run(run)


def test_a_report_that_cannot_be_written_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ReportError, match=r"cannot be written to .*Choose another place with --out"
    ):
        write_report([run], tmp_path / "file" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write_report([run], tmp_path / "folder")
    assert not list(tmp_path.glob("*.part"))


def test_several_runs_stand_side_by_side_in_columns(run: Path, tmp_path: Path) -> None:
    other = finished_run(tmp_path / "other", learning_rate=3e-3)
    third = finished_run(tmp_path / "third", name="third")
    out = write_report([run, other, third], tmp_path / "all.html")
    html = out.read_text()
    for label in ("small run", "small other", "third"):
        assert f'<th scope="col" class="figure">{label}</th>' in html
    row = re.search(
        r'<tr class="strong">\s*<th scope="row">learning rate</th>(.*?)</tr>', html, re.S
    )
    assert row is not None
    assert re.findall(r">([\d.e-]+)<", row.group(1)) == ["0.001", "0.003", "0.001"]
    assert '<tr>\n<th scope="row">seed</th>' in html, "what is alike is not in bold"
    assert out.stat().st_size < 5_000_000


def test_the_command_writes_the_file_and_says_where(run: Path, tmp_path: Path) -> None:
    for name in ("validation.json", "examples.npz", "coordinator.sqlite", "history.csv"):
        (run / name).unlink()  # a short report is quicker
    done = CliRunner().invoke(cli.app, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert str(run / "report.html") in done.output
    (run / "summary.json").write_text("{")
    failed = CliRunner().invoke(cli.app, ["report", str(run)])
    assert failed.exit_code == 1
    assert "summary.json is damaged" in failed.output
    none = CliRunner().invoke(cli.app, ["report", "nowhere", "--runs", str(tmp_path)])
    assert none.exit_code == 2
    assert "There is no run nowhere" in none.output

"""The command line of `penstock wrap`: what it makes of it, and what it refuses, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock import wrap
from penstock.wrapping.outputs import Output
from penstock.wrapping.request import settings
from penstock.wrapping.settings import Wrapping

FIELD = ["--field", "u=out_*.npy"]
TRUE = ["--", "true", "${a}"]


def request(*words: str) -> Wrapping:
    cut = words.index("--")
    return settings(wrap.parser().parse_args(words[:cut]), words[cut + 1 :])


def test_a_request_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.nml.template").write_text("a = ${a}")
    (tmp_path / "mesh.msh").touch()
    program = tmp_path / "solver"
    program.touch(0o755)
    found = request(
        "--template", "in.nml.template", "--link", "mesh.msh=data/mesh.msh", "--stdin", "in.nml",
        *FIELD, "--field", "p=all.h5:/g/p", "--room", "2.5MB", "--memory", str(tmp_path),
        "--parameter", "a=3", "--", "./solver", "--", "${seed}",
    )  # fmt: skip
    assert [word.fill({"seed": 3}) for word in found.command] == [str(program), "--", "3"]
    assert list(found.templates) == ["in.nml"]
    assert found.links == {"data/mesh.msh": tmp_path / "mesh.msh"}
    assert found.outputs == (Output("u", "out_*.npy"), Output("p", "all.h5", "/g/p"))
    assert (found.room_bytes, found.memory) == (2_500_000, tmp_path)
    assert found.parameters == {"a": 3.0}
    assert found.series == (found.outputs[1],)


def test_the_folder_is_made_in_memory(tmp_path: Path) -> None:
    found = request(*FIELD, *TRUE)
    assert found.memory == Path("/dev/shm")
    assert 0 < found.room_bytes <= 1 << 30


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([*FIELD], 2, "There is no program to run"),
        ([*FIELD, "--"], 2, "There is no program to run"),
        ([*FIELD, "--", "./nothing"], 127, "The program ./nothing was not found"),
        ([*FIELD, "--", "./plain"], 126, "./plain is not executable; chmod +x"),
        (TRUE, 2, "Say which files hold which field"),
        (["--field", "u", *TRUE], 2, "--field expects NAME=FILES"),
        ([*FIELD, *FIELD, *TRUE], 2, "Each --field is named once"),
        ([*FIELD, "--", "true"], 2, "every simulation would be the same"),
        ([*FIELD, "--", "true", "${a.b}"], 2, "has ${a.b}. A placeholder is a name"),
        ([*FIELD, "--template", "no.in", *TRUE], 2, "no.in does not exist"),
        ([*FIELD, "--template", "plain=../x", *TRUE], 2, "has to be a relative path"),
        ([*FIELD, "--stdin", "x", *TRUE], 2, "--stdin x is no --template"),
        (["--field", "u=/tmp/a_*.npy", *TRUE], 2, "has to be a relative path"),
        (["--field", "u=a_*.grib", *TRUE], 2, "Files of the kind .grib are not read"),
        (["--field", "u=plain.npy", "--link", "plain=plain.npy", *TRUE], 2, "is an input"),
        ([*FIELD, "--steps", "0", *TRUE], 2, "--steps has to be 1 or more"),
        ([*FIELD, "--done", "x", "--at-once", *TRUE], 2, "leave out it or --done"),
        ([*FIELD, "--times", "t.csv:t", "--dt", "1", *TRUE], 2, "without --dt"),
        ([*FIELD, "--room", "much", *TRUE], 2, "--room expects a size such as 500MB"),
        ([*FIELD, "--room", "900TB", *TRUE], 2, "MB free, and"),
        ([*FIELD, "--memory", "nowhere", *TRUE], 2, "nowhere is no folder"),
        ([*FIELD, "--parameter", "a", *TRUE], 2, "--parameter expects NAME=VALUE"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").touch(0o644)
    assert wrap.main(words) == code
    assert told in capsys.readouterr().err


def test_help_teaches_by_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "wrap", "--help"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "--field temperature='out_*.npy'" in done.stdout
    assert 'command = ["{python}", "-m", "penstock", "wrap"' in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())

"""`penstock wrap` as a process, around programs that work, fail, hang and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wrapped import FAMILY, FIELD, GOOD, Wrapper, alive, assert_gone

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc"),
]
Started = Callable[..., Wrapper]


@pytest.fixture
def wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    monkeypatch.delenv("PENSTOCK_COORDINATOR", raising=False)
    started: list[Wrapper] = []

    def start(*arguments: str, **more: object) -> Wrapper:
        started.append(Wrapper(tmp_path, *arguments, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for wrapper in started:
        wrapper.stop()


def test_without_a_server_the_program_runs_once_and_alone(wrap: Started) -> None:
    wrapper = wrap(GOOD + "print('all is well')")
    assert wrapper.finish() == 0, wrapper.output
    assert "all is well" in wrapper.output
    assert "5 steps of u (8, 6) were checked and dropped" in wrapper.output
    assert not wrapper.folders()


def test_templates_links_and_standard_input_reach_the_program(
    wrap: Started, tmp_path: Path
) -> None:
    (tmp_path / "in.json.template").write_text('{"alpha": ${alpha}, "n": ${n:d}}')
    (tmp_path / "mesh.txt").write_text("a mesh")
    body = """
import json
given = json.load(sys.stdin)
assert given == {"alpha": 0.25, "n": 4}, given
assert open("in/mesh.txt").read() == "a mesh"
assert not [name for name in os.environ if name.startswith("PENSTOCK_COORD")]
np.save("out_1.npy", np.zeros(given["n"]))
"""
    wrapper = wrap(
        body, *FIELD, "--template", str(tmp_path / "in.json.template"), "--stdin", "in.json",
        "--link", f"{tmp_path / 'mesh.txt'}=in/mesh.txt", "--parameter", "alpha=0.25",
        "--parameter", "n=4",
    )  # fmt: skip
    assert wrapper.finish() == 0, wrapper.output
    assert "1 steps of u (4,)" in wrapper.output


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (GOOD + "sys.exit('The mesh is broken.')", "ended by exit code 1:\nThe mesh is broken."),
        ("print('no licence')\nsys.exit(3)", "ended by exit code 3:\nno licence"),
        ("os.kill(os.getpid(), 11)", "ended by signal SIGSEGV, and said nothing."),
        ("", r"no file matches out_*.npy. Its folder holds nothing."),
        (GOOD + "np.save('out_7.npy', np.zeros(3))", "came with the shape (3,)"),
    ],
)
def test_a_program_that_fails_says_why(wrap: Started, body: str, words: str) -> None:
    wrapper = wrap(body)
    assert wrapper.finish() == 1
    assert words in wrapper.output
    assert not wrapper.folders()


def test_a_placeholder_that_nobody_fills_is_told_before_the_first_run(
    wrap: Started, tmp_path: Path
) -> None:
    (tmp_path / "in.nml").write_text("a = ${alhpa}")
    wrapper = wrap(
        "print('it ran')", *FIELD, "--template", str(tmp_path / "in.nml"), "--parameter", "alpha=1"
    )
    assert wrapper.finish() == 1
    assert "in.nml, line 1, has the placeholder ${alhpa}. Valid are alpha," in wrapper.output
    assert "the program does not learn of alpha" in wrapper.output
    assert "it ran" not in wrapper.output


def test_a_program_that_hangs_is_ended_with_all_its_processes(wrap: Started) -> None:
    wrapper = wrap("signal = __import__('signal'); signal.signal(15, signal.SIG_IGN)" + FAMILY,
                   *FIELD, "--timeout", "3")  # fmt: skip
    pids = wrapper.family()
    assert wrapper.finish() == 1
    assert "had not ended after 3 s (--timeout)" in wrapper.output
    assert not any(map(alive, pids))
    assert not wrapper.folders()


def test_a_program_that_fills_the_memory_is_ended(wrap: Started) -> None:
    body = "open('core', 'wb').write(bytes(3_000_000)); time.sleep(1000)"
    wrapper = wrap(body, *FIELD, "--room", "2MB")
    assert wrapper.finish() == 1
    # It may be looked at while the last of the 3 MB are being written.
    assert " MB in its folder and none of it is a complete step; 2 MB" in wrapper.output


def test_a_killed_program_leaves_nothing(wrap: Started) -> None:
    wrapper = wrap(FAMILY)
    pids = wrapper.family()
    os.kill(pids[0], signal.SIGKILL)
    assert wrapper.finish() == 1
    assert "ended by signal SIGKILL" in wrapper.output
    assert not any(map(alive, pids))
    assert not wrapper.folders()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_with_its_wrapper(wrap: Started, number: signal.Signals) -> None:
    wrapper = wrap(FAMILY)
    pids = wrapper.family()
    wrapper.process.send_signal(number)
    assert wrapper.finish() == (130 if number == signal.SIGINT else -number)
    assert_gone(pids, wrapper)


def test_what_a_program_leaves_running_is_ended(wrap: Started) -> None:
    body = (
        GOOD
        + """
import subprocess
daemon = subprocess.Popen(["setsid", "sleep", "1000"], stdout=2)
print("daemon", daemon.pid, flush=True)
"""
    )
    wrapper = wrap(body)
    assert wrapper.finish() == 0, wrapper.output
    pid = int(wrapper.output.partition("daemon ")[2].split()[0])
    assert not alive(pid)


def test_a_halted_program_goes_on_where_it_was(tmp_path: Path) -> None:
    """In a process of its own: a keeper is forked, which pytest's threads would not like."""
    script = """
import sys
from pathlib import Path
from penstock.group import Keeper
from penstock.processes import processes
from penstock.wrapping.program import Program
keeper = Keeper("PENSTOCK_WRAPPED=test")
command = ["sh", "-c", "sleep 1000 & wait"]
def states():
    table = processes()
    return [table[pid].state for pid in program._alive() if pid in table]
def until(wanted):
    while not (len(states()) == 2 and all(state in wanted for state in states())):
        assert not program.ended(0.01)
with Program(command, Path("."), None, "PENSTOCK_WRAPPED=test", keeper) as program:
    until("SRD")
    program.halt()
    until("T")
    program.resume()
    until("SRD")
    program.halt()
assert not program._alive() and program.exit_code != 0
keeper.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=tmp_path)

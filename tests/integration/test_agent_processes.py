"""Agents with real commands: they start, watch and end them, and nothing of them is ever left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_boss import Boss, alive, cpu_seconds, descendants, named, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="agents watch /proc")

SLEEP = ["sleep", "1000"]
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"
}  # fmt: skip
MPIRUN = [
    pytest.param(
        ["mpirun", "--oversubscribe", "-n", "2", *SLEEP],
        id="mpirun",
        marks=pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here"),
    )
]
COMMANDS = [
    pytest.param(SLEEP, id="plain"),
    pytest.param(["sh", "-c", "sleep 1000 & sleep 1001 & wait"], id="script"),
    pytest.param(
        ["sh", "-c", "setsid sleep 1000 & trap '' TERM; sleep 1001; sleep 1002"], id="deaf"
    ),
    *MPIRUN,
]


@pytest.fixture
def boss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boss]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    made = Boss(tmp_path / "logs")
    yield made
    made.close()


def start_sleeping(boss: Boss, command: list[str], *options: str) -> tuple[int, list[int]]:
    """Returns the agent's pid and all processes of its command, two sleeping ones at least."""
    agent = boss.hire(command, *options)
    boss.start()
    wanted = 1 if command == SLEEP else 2
    boss.serve_until(lambda: len(named(agent.pid, "sleep 100")) >= wanted, "the command runs")
    keeper = min(descendants(agent.pid))
    return agent.pid, [pid for pid in descendants(agent.pid) if pid != keeper]


def assert_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(alive, pids)), "all of its processes are gone")


def test_a_command_is_started_on_order_with_its_environment(boss: Boss) -> None:
    names = "COORDINATOR WORKER AGENT"
    script = f"import os; print(*[os.environ['PENSTOCK_' + n] for n in '{names}'.split()])"
    agent = boss.hire([sys.executable, "-c", script])
    assert boss.until(lambda beat: True)["state"] == "idle"
    boss.order = {"order": "start", "worker": "w7"}
    beat = boss.until(lambda beat: beat["state"] == "exited")
    assert (beat["exit_code"], beat["worker"]) == (0, "w7")
    assert (boss.log_dir / "w7.out").read_text().split() == [boss.address, "w7", "a1"]
    boss.order = {"order": "leave"}
    boss.until(lambda beat: beat["state"] == "left")
    assert agent.wait(10.0) == 0


def test_a_command_that_fails_is_reported_with_its_stderr(boss: Boss) -> None:
    boss.hire(["sh", "-c", "yes line | head -5000 >&2; echo the reason >&2; exit 3"])
    boss.start()
    beat = boss.until(lambda beat: beat["state"] == "exited")
    assert beat["exit_code"] == 3
    assert beat["stderr_tail"].endswith("line\nthe reason\n")
    assert len(beat["stderr_tail"]) == 8192
    assert Path(beat["log"]).read_text().count("line") == 5000


def test_a_command_that_does_not_exist_is_reported_as_such(boss: Boss) -> None:
    boss.hire(["/no/such/solver"])
    boss.start()
    beat = boss.until(lambda beat: beat["state"] == "exited")
    assert beat["exit_code"] == 127
    assert "'/no/such/solver' could not be started" in beat["stderr_tail"]


def test_one_agent_runs_one_worker_after_the_other(boss: Boss) -> None:
    boss.hire(["sh", "-c", 'echo "$PENSTOCK_WORKER" >&2'])
    for worker in ("w1", "w2", "w3"):
        boss.start(worker)
        beat = boss.until(lambda beat, w=worker: (beat["worker"], beat["state"]) == (w, "exited"))
        assert beat["stderr_tail"] == f"{worker}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_order_end_ends_every_process_of_the_command(boss: Boss, command: list[str]) -> None:
    _, pids = start_sleeping(boss, command)
    boss.order = {"order": "end"}
    assert boss.until(lambda beat: beat["state"] == "exited")["exit_code"] != 0
    assert not any(map(alive, pids))


def test_a_program_that_its_wrapper_halts_does_not_count_as_stopped(boss: Boss) -> None:
    script = "sleep 1000 & PENSTOCK_MAY_HALT=1 sleep 1001 & wait"
    agent, _ = start_sleeping(boss, ["sh", "-c", script], "--silence-s", "0.5")
    (halted,) = named(agent, "sleep 1001")
    os.kill(halted, signal.SIGSTOP)
    seen = len(boss.beats)
    boss.until(lambda beat: len(boss.beats) > seen + 12)
    assert all(beat["state"] == "running" for beat in boss.beats[seen:])
    (other,) = named(agent, "sleep 1000")
    os.kill(other, signal.SIGSTOP)
    boss.until(lambda beat: beat["state"] == "stopped")


@pytest.mark.parametrize("command", [COMMANDS[0], *MPIRUN])
def test_a_stopped_process_is_reported_and_can_be_ended(boss: Boss, command: list[str]) -> None:
    agent, pids = start_sleeping(boss, command, "--silence-s", "0.5")
    os.kill(named(agent, "sleep 100")[-1], signal.SIGSTOP)
    beat = boss.until(lambda beat: beat["state"] == "stopped")
    assert beat["stopped_s"] >= 0.5
    assert all(earlier["state"] != "stopped" for earlier in boss.beats[:-1])
    boss.order = {"order": "end"}
    boss.until(lambda beat: beat["state"] == "exited")
    assert not any(map(alive, pids))


def test_a_process_that_is_continued_in_time_is_not_reported(boss: Boss) -> None:
    agent, _ = start_sleeping(boss, SLEEP, "--silence-s", "2.0")
    sleeper = named(agent, "sleep 100")[0]
    os.kill(sleeper, signal.SIGSTOP)
    boss.until(lambda beat: beat["stopped_s"] > 0.2)
    os.kill(sleeper, signal.SIGCONT)
    assert boss.until(lambda beat: beat["stopped_s"] == 0.0)["state"] == "running"


def test_a_busy_process_is_alive_and_its_agent_is_not_busy(boss: Boss) -> None:
    agent = boss.hire([sys.executable, "-c", "while True: pass"], "--silence-s", "0.3")
    boss.start()
    seen, began_s, used_s = len(boss.beats), time.monotonic(), cpu_seconds(agent.pid)
    boss.serve_until(lambda: len(boss.beats) >= seen + 10, "ten more beats")
    assert {beat["state"] for beat in boss.beats[seen:]} == {"running"}
    assert cpu_seconds(agent.pid) - used_s < 0.5 * (time.monotonic() - began_s)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_agent_killed_with_9_takes_its_whole_group_with_it(
    boss: Boss, command: list[str]
) -> None:
    agent, pids = start_sleeping(boss, command)
    os.kill(agent, signal.SIGKILL)
    assert_gone(pids)


def test_a_stopped_group_dies_with_its_killed_agent_too(boss: Boss) -> None:
    agent, pids = start_sleeping(boss, ["sh", "-c", "sleep 1000 & sleep 1001 & wait"])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    os.kill(agent, signal.SIGKILL)
    assert_gone(pids)


def test_an_agent_that_is_terminated_ends_its_group_and_says_goodbye(boss: Boss) -> None:
    agent, pids = start_sleeping(boss, SLEEP)
    os.kill(agent, signal.SIGTERM)
    boss.until(lambda beat: beat["state"] == "left")
    assert boss.agents[0].wait(10.0) == 128 + signal.SIGTERM
    assert not any(map(alive, pids))


def test_an_agent_ends_its_group_when_the_coordinator_stays_silent(boss: Boss) -> None:
    _, pids = start_sleeping(boss, SLEEP, "--coordinator-patience-s", "1.0")
    assert boss.agents[0].wait(15.0) == 4
    assert not any(map(alive, pids))


def test_an_agent_bears_a_coordinator_that_is_started_again(boss: Boss) -> None:
    agent, pids = start_sleeping(boss, SLEEP)
    boss.die_and_come_back()
    assert boss.until(lambda beat: beat["state"] == "running")["worker"] == "w1"
    assert alive(pids[0])
    assert alive(agent)


def test_an_agent_dies_with_its_parent_where_told_to(boss: Boss) -> None:
    script = (
        "import subprocess, sys\n"
        "agent = subprocess.Popen(sys.argv[1:])\n"
        "print(agent.pid, flush=True)\n"
        "agent.wait()\n"
    )
    command = [
        sys.executable, "-m", "penstock.agent", "--coordinator", boss.address, "--agent", "a1",
        "--log-dir", str(boss.log_dir), "--beat-s", "0.1", "--die-with-parent", "--", *SLEEP,
    ]  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    agent = int(parent.stdout.readline())
    boss.start()
    boss.serve_until(lambda: bool(named(agent, "sleep 100")), "the command runs")
    pids = [agent, *descendants(agent)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    boss.until(lambda beat: beat["state"] == "left")
    assert_gone(pids)


def test_leftovers_of_a_command_that_ended_are_ended_too(boss: Boss) -> None:
    boss.hire(["sh", "-c", "setsid sleep 1000 & sleep 0.2; exit 0"])
    started = time.monotonic()
    boss.start()
    assert boss.until(lambda beat: beat["state"] == "exited")["exit_code"] == 0
    assert named(boss.agents[0].pid, "sleep 1000") == []
    assert time.monotonic() - started < 10.0

"""`penstock try`: real programs against the counting server, and what is said of them."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console

from penstock_server.config import Campaign, parse
from penstock_server.interpreters import find_interpreter, find_starter
from penstock_server.try_desk import Work
from penstock_server.try_findings import Trial, findings
from penstock_server.try_report import proposal, report, without_mpirun
from penstock_server.try_solver import TryError, inputs, program, run, try_solver

pytestmark = pytest.mark.timeout(60)

HEAD = """
import numpy as np, penstock, sys
def field(sim, step):
    return np.full((8, 6), sim.id + step / 10) + np.arange(6)
"""
GOOD = """
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(5):
            sim.send(0.1 * step, u=field(sim, step), drag=1.0 + step)
"""
CAMPAIGN = """
name = "try"
[solver]
command = ["true"]
steps = 5
[design]
simulations = 4
[design.parameters]
a = { low = 1, high = 2 }
[fields.u]
shape = [8, 6]
[fields.drag]
shape = []
"""


def trial(
    tmp_path: Path,
    body: str,
    *,
    campaign: Campaign | None = None,
    seconds: float = 30.0,
    n: int = 2,
) -> Trial:
    file = tmp_path / "solver.py"
    file.write_text(HEAD + body)
    argv, environment = program([sys.executable, str(file)], campaign)
    return run(
        argv,
        argv,
        environment,
        Work(tuple(inputs((), campaign, n))),
        campaign,
        seconds,
        tmp_path / "log",
    )


def said(found: Trial, campaign: Campaign | None = None) -> str:
    return "\n".join(report(found, findings(found, campaign), campaign))


def test_fields_shapes_and_bytes_are_learned_without_a_campaign_file(tmp_path: Path) -> None:
    found = trial(tmp_path, GOOD)
    assert findings(found, None) == []
    text = said(found)
    assert "2 of 2 simulations ended, 5 steps each" in text
    assert "u: 8 x 6, float64, 384 B, every step; values from 0 to 6.4" in text
    assert "drag: one number, float64, 8 B, every step; values from 1 to 5" in text
    assert "392 B a step, 1.96 kB a simulation" in text
    assert "every value comes from one rank" in text
    assert "A campaign can take this program as it is." in text


def test_the_proposed_sections_make_a_campaign(tmp_path: Path) -> None:
    text = "\n".join(proposal(trial(tmp_path, GOOD)))
    rest = 'name = "x"\n[design]\nsimulations = 3\nparameters.a = { low = 0, high = 1 }\n'
    campaign = parse(rest + text)
    assert campaign.fields["u"].shape == (8, 6)
    assert campaign.fields["drag"].role == "quantity"
    assert (campaign.solver.steps, campaign.solver.mpi_ranks) == (5, 1)
    assert campaign.solver.command[0] == sys.executable


def test_input_fields_are_learned_and_proposed_as_inputs(tmp_path: Path) -> None:
    body = """
with penstock.connect() as link:
    for sim in link.simulations():
        sim.inputs(k=np.full(3, sim.id + 1.0))
        for step in range(5):
            sim.send(0.1 * step, u=field(sim, step))
"""
    found = trial(tmp_path, body)
    assert findings(found, None) == []
    text = said(found)
    assert "k: 3, float64, 24 B, input, once a simulation; values from 1 to 2" in text
    assert "u: 8 x 6, float64, 384 B, every step" in text
    assert "384 B a step, 1.94 kB a simulation" in text
    rest = 'name = "x"\n[design]\nsimulations = 3\nparameters.a = { low = 0, high = 1 }\n'
    campaign = parse(rest + "\n".join(proposal(found)))
    assert (list(campaign.step_fields), list(campaign.input_fields)) == (["u"], ["k"])


def test_a_field_that_comes_only_later_is_told(tmp_path: Path) -> None:
    body = """
with penstock.connect() as link:
    for sim in link.simulations():
        sim.send(0.0, u=field(sim, 0))
        sim.send(0.1, u=field(sim, 1), drag=1.0)
"""
    problems = findings(trial(tmp_path, body), None)
    assert any("'drag' did not come the first time" in problem for problem in problems)


def test_a_program_that_runs_one_simulation_and_exits_is_started_again(tmp_path: Path) -> None:
    body = """
with penstock.connect() as link:
    sim = link.simulation()
    sim.send(0.0, u=field(sim, 0))
    sim.send(0.1, u=field(sim, 1))
"""
    found = trial(tmp_path, body, n=3)
    assert findings(found, None) == []
    assert "started 3 times" in said(found)
    assert len(found.counts.simulations) == 3


def test_simulations_of_different_length_get_a_ceiling(tmp_path: Path) -> None:
    found = trial(tmp_path, GOOD.replace("range(5)", "range(3 + sim.id)"))
    assert findings(found, None) == []
    assert any(text.startswith("max_steps = 4") for text in proposal(found))


def test_values_that_are_not_finite_are_found_where_they_are(tmp_path: Path) -> None:
    body = """
with penstock.connect() as link:
    for sim in link.simulations():
        for step in range(3):
            u = field(sim, step)
            u[2, 1:3] = np.nan if (sim.id, step) == (1, 2) else 0.0
            sim.send(0.1 * step, u=u)
"""
    (problem,) = findings(trial(tmp_path, body), None)
    assert "u: 2 values are NaN or infinite, the first at simulation 1, step 2, rank 0" in problem


def test_a_program_that_dies_is_shown_with_its_last_words(tmp_path: Path) -> None:
    found = trial(tmp_path, "sys.exit('The mesh file is not there.')")
    text = said(found)
    assert "exit code 1" in text
    assert "The mesh file is not there." in text
    assert "ended without having asked for a simulation" in text


def test_a_program_that_does_not_connect_is_ended_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_server.try_solver.GRACE_S", 0.5)
    found = trial(tmp_path, "import time; time.sleep(1000)", seconds=1.0)
    assert found.time_over
    (problem,) = findings(found, None)
    assert problem.startswith("The program did not ask for a simulation within")
    assert "--seconds" in problem


def test_a_program_that_goes_on_after_the_last_simulation_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_server.try_solver.GRACE_S", 0.5)
    found = trial(tmp_path, GOOD + "import time; time.sleep(1000)")
    assert any("no more simulations, and was ended" in problem for problem in findings(found, None))
    assert len(found.counts.simulations) == 2


def test_a_missing_parameter_says_how_to_give_it(tmp_path: Path) -> None:
    body = GOOD.replace("range(5)", "range(int(sim.parameters['nu']))")
    problems = findings(trial(tmp_path, body), None)
    assert any("--parameter nu=LOW:HIGH" in problem for problem in problems)


def test_failed_simulations_are_told_with_their_reason(tmp_path: Path) -> None:
    body = """
with penstock.connect() as link:
    for sim in link.simulations():
        sim.send(0.0, u=field(sim, 0))
        sim.fail("the Newton iteration diverged")
"""
    (first, second) = findings(trial(tmp_path, body), None)
    assert first == "Simulation 0 failed: the Newton iteration diverged."
    assert second.startswith("Simulation 1 failed")


def test_a_campaign_gives_inputs_and_is_compared_with(tmp_path: Path) -> None:
    campaign = parse(CAMPAIGN)
    body = GOOD.replace("range(5)", "range(4)")
    found = trial(tmp_path, body, campaign=campaign)
    assert [1 <= sim.parameters["a"] <= 2 for sim in found.counts.simulations.values()] == [
        True
    ] * 2
    problems = findings(found, campaign)
    assert "Simulation 0 sent 4 steps; by solver.steps of the campaign it is to send 5." in problems
    assert findings(trial(tmp_path, GOOD, campaign=campaign), campaign) == []


def test_a_field_that_the_campaign_does_not_declare_is_named(tmp_path: Path) -> None:
    campaign = parse(CAMPAIGN.replace("fields.u", "fields.velocity"))
    problems = findings(trial(tmp_path, GOOD, campaign=campaign), campaign)
    assert any("'u' is not declared" in problem for problem in problems)


def test_the_command_prints_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "solver.py").write_text(HEAD + GOOD)
    console = Console(file=io.StringIO(), width=100)
    command = [sys.executable, str(tmp_path / "solver.py")]
    assert try_solver(command, console, simulations=1, seconds=30.0) == 0
    assert not list(tmp_path.glob("penstock-try-*"))
    assert isinstance(console.file, io.StringIO)
    assert "[fields.u]" in console.file.getvalue()
    (tmp_path / "solver.py").write_text("raise SystemExit(3)")
    assert try_solver(command, console, simulations=1, seconds=30.0) == 1
    assert list(tmp_path.glob("penstock-try-*"))  # with what the program wrote


@pytest.mark.solvers
def test_ranks_of_an_mpi_program_are_put_together(tmp_path: Path) -> None:
    starter = find_starter(find_interpreter())
    assert starter is not None
    solver = "-m penstock_solvers.heat --n 16 --steps 4"
    command = [*starter.argv(2), "{python}", *shlex.split(solver)]
    argv, environment = program(command, None)
    points = inputs([f"T{i}=100:500" for i in range(5)], None, 2)
    found = run(command, argv, environment, Work(tuple(points)), None, 60.0, tmp_path / "log")
    assert findings(found, None) == []
    text = said(found)
    assert "temperature: 16 x 16, float64" in text
    assert "2 rank(s): every value comes from one rank" in text
    assert 'command = ["{python}", "-m", "penstock_solvers.heat"' in text
    assert "mpi_ranks = 2" in text


@pytest.mark.solvers
def test_ranks_of_an_mpi_program_learn_the_same_fields(tmp_path: Path) -> None:
    starter = find_starter(find_interpreter())
    assert starter is not None
    solver = tmp_path / "solver.py"
    solver.write_text("""
import numpy as np, penstock
from mpi4py import MPI
comm = MPI.COMM_WORLD
rows = slice(4 * comm.rank, 4 * comm.rank + 4)
with penstock.connect(comm) as link:
    link.layout("u", global_shape=(8, 6), owned=(rows, slice(None)))
    link.layout("k", global_shape=(8,), owned=np.arange(8)[rows])
    for sim in link.simulations():
        sim.inputs(k=np.arange(8.0)[rows])
        for step in range(3):
            sim.send(0.1 * step, u=np.full((4, 6), step + comm.rank))
""")
    command = [*starter.argv(2), "{python}", str(solver)]
    argv, environment = program(command, None)
    found = run(
        command, argv, environment, Work(tuple(inputs((), None, 2))), None, 60.0, tmp_path / "log"
    )
    assert findings(found, None) == []
    text = said(found)
    assert "k: 8, float64, 64 B, input, once a simulation; values from 0 to 7" in text
    assert "u: 8 x 6, float64, 384 B, every step; values from 0 to 3" in text


def test_parameters_are_ranges_or_values() -> None:
    points = inputs(["nu=0.01:0.1", "n=3"], None, 5)
    assert len({point["nu"] for point in points}) == 5
    assert all(0.01 <= point["nu"] <= 0.1 and point["n"] == 3.0 for point in points)
    assert inputs(["nu=0.01:0.1"], None, 2)[0] == {"nu": points[0]["nu"]}


@pytest.mark.parametrize("text", ["nu", "=3", "nu=", "nu=a:b", "nu=1:"])
def test_a_parameter_that_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(TryError, match="NAME=LOW:HIGH"):
        inputs([text], None, 1)


@pytest.mark.parametrize(
    "command",
    [
        "mpirun -n 4 ./solver -n 64",
        "/usr/bin/mpiexec --oversubscribe --bind-to none -np 2 ./solver -n 64",
        "mpirun --mca btl self,vader -x A ./solver -n 64",
        "./solver -n 64",
    ],
)
def test_the_solver_is_found_behind_mpirun(command: str) -> None:
    assert without_mpirun(shlex.split(command)) == ["./solver", "-n", "64"]

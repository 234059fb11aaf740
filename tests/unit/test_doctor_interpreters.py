"""Finding the solvers' interpreter and MPI, and building the command of a worker."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaigns import small

from penstock_server import interpreters
from penstock_server.interpreters import (
    Interpreter,
    SolverError,
    Starter,
    find_interpreter,
    find_starter,
    flavour_of,
    package_folders,
    probe,
    solver_command,
    solver_environment,
)

Program = Callable[[str, str], Path]
COMPLETE = '{"dolfinx": "0.9", "petsc4py": "3", "mpi4py": "4", "numpy": "2", "zmq": "27"}'


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Probes are remembered for a process's life; here each test has its own machine."""
    for name in ("PENSTOCK_SOLVER_PYTHON", "CONDA_PREFIX", "PENSTOCK_CACHE"):
        monkeypatch.delenv(name, raising=False)
    interpreters.probe.cache_clear()
    interpreters._starter.cache_clear()
    yield
    interpreters.probe.cache_clear()
    interpreters._starter.cache_clear()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes an executable shell script in a folder of its own machine."""

    def make(name: str, body: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def fake_python(program: Program, name: str, found: str = COMPLETE, mpi: str = "") -> Path:
    told = f'{{"version": "3.12.1", "found": {found}, "mpi": "{mpi}"}}'
    return program(name, f"echo some noise\necho '{told}'")


def use(monkeypatch: pytest.MonkeyPatch, *paths: Path | str) -> None:
    monkeypatch.setattr(interpreters, "candidates", lambda: [str(path) for path in paths])


def test_this_interpreter_is_probed_for_what_it_has() -> None:
    here = probe(sys.executable)
    assert here is not None
    assert here.version == ".".join(map(str, sys.version_info[:3]))
    assert {"numpy", "zmq"} <= set(here.found)
    assert here.found["numpy"][0].isdigit()


def test_what_does_not_run_as_python_is_nothing(program: Program) -> None:
    assert probe("/nowhere/python") is None
    assert probe(str(program("python", "echo not json"))) is None
    assert probe(str(program("silent", "exit 0"))) is None


def test_the_first_interpreter_with_everything_is_taken(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = fake_python(program, "lacking", '{"dolfinx": "0.9", "numpy": "2"}')
    complete = fake_python(program, "complete")
    use(monkeypatch, lacking, complete, sys.executable)
    assert find_interpreter().path == str(complete)
    assert probe(str(lacking)).missing == ("petsc4py", "mpi4py", "zmq")  # type: ignore[union-attr]


def test_without_dolfinx_the_servers_own_interpreter_is_taken(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_python(program, "lacking", "{}"))
    assert find_interpreter().path == sys.executable


def test_the_environment_variable_wins(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_python(program, "chosen", "{}")
    use(monkeypatch, fake_python(program, "complete"))
    monkeypatch.setenv("PENSTOCK_SOLVER_PYTHON", str(chosen))
    assert find_interpreter().path == str(chosen)


def test_an_environment_variable_that_names_no_python_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_SOLVER_PYTHON", "/nowhere/python")
    with pytest.raises(SolverError, match="PENSTOCK_SOLVER_PYTHON = /nowhere/python does not run"):
        find_interpreter()


@pytest.mark.parametrize(
    ("text", "flavour"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to", ("Open MPI", (4, 1, 4))),
        ("mpirun (Open MPI) 5.0.7", ("Open MPI", (5, 0, 7))),
        ("Open MPI v4.1.4, package: Debian OpenMPI", ("Open MPI", (4, 1, 4))),
        ("HYDRA build details:\n    Version:    4.0.2", ("MPICH", (4, 0, 2))),
        ("MPICH Version:      4.2.1\nMPICH Release", ("MPICH", (4, 2, 1))),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.12", ("Intel MPI", (2021, 12))),
        ("something else", ("", ())),
    ],
)
def test_an_mpi_is_known_by_what_it_says(text: str, flavour: tuple[str, tuple[int, ...]]) -> None:
    assert flavour_of(text) == flavour


def test_each_mpi_is_started_its_own_way() -> None:
    assert Starter("mpirun", "Open MPI", (4, 1)).argv(2) == [
        *("mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2")
    ]
    assert ":OVERSUBSCRIBE" in Starter("mpirun", "Open MPI", (5, 0)).argv(2)
    assert Starter("mpiexec", "MPICH", (4,)).argv(3) == ["mpiexec", "-n", "3"]


def test_the_mpirun_of_the_interpreters_mpi_is_preferred(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    mpich = program("mpiexec", "echo 'HYDRA build details: Version: 4.0.2'")
    monkeypatch.setenv("PATH", f"{mpich.parent}:/bin")
    assert find_starter(Interpreter("/x/python", "3", {}, "MPICH")) == Starter(
        str(mpich), "MPICH", (4, 0, 2)
    )
    assert find_starter(None).flavour == "Open MPI"  # type: ignore[union-attr]


def test_one_rank_is_started_without_mpirun(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_python(program, "python3"))
    argv, env = solver_command(small("solver.env.A=b", "solver.env.OMP_NUM_THREADS='4'"))
    assert argv[0].endswith("bin/python3")
    assert argv[1:] == ["-m", "penstock_solvers.heat_numpy"]
    assert env["A"] == "b"
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["OMPI_MCA_mpi_yield_when_idle"] == "1"


def test_several_ranks_are_started_by_mpirun(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_python(program, "python3", mpi="Open MPI v4.1.4"))
    mpirun = program("mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    argv, _ = solver_command(small("solver.mpi_ranks=2"))
    assert argv[:6] == [str(mpirun), "--oversubscribe", "--bind-to", "none", "-n", "2"]
    assert argv[7:] == ["-m", "penstock_solvers.heat_numpy"]


def test_a_foreign_mpirun_is_refused_because_every_rank_would_be_alone(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_python(program, "python3", mpi="MPICH Version: 4.2"))
    mpirun = program("mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    monkeypatch.setenv("PATH", f"{mpirun.parent}:/bin")
    monkeypatch.setattr(interpreters, "_starters", lambda _: iter([_starter_of(mpirun)]))
    with pytest.raises(SolverError, match="every rank would run alone"):
        solver_command(small("solver.mpi_ranks=2"))


def _starter_of(path: Path) -> Starter:
    starter = interpreters._starter(str(path))
    assert starter is not None
    return starter


def test_several_ranks_without_any_mpirun_are_refused(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_python(program, "python3"))
    monkeypatch.setattr(interpreters, "_starters", lambda _: iter(()))
    with pytest.raises(SolverError, match=r"mpi_ranks = 2 needs mpirun or mpiexec"):
        solver_command(small("solver.mpi_ranks=2"))


def test_a_command_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SolverError, match=r"The solver command \./no_such_solver was not found"):
        solver_command(small("solver.command=['./no_such_solver']"))


def test_a_command_without_python_needs_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "find_interpreter", lambda: pytest.fail("not needed"))
    assert solver_command(small("solver.command=['sh', '-c', 'true']")).argv == ["sh", "-c", "true"]


def test_solvers_see_the_two_packages_before_what_they_inherit() -> None:
    env = solver_environment({"PYTHONPATH": "/mine::/other"})
    folders = env["PYTHONPATH"].split(os.pathsep)
    assert folders[-2:] == ["/mine", "/other"]
    seen = {path.name for folder in folders[:-2] for path in Path(folder).iterdir()}
    assert {"penstock", "penstock_solvers"} <= seen
    assert not {"torch", "penstock_server", "penstock_surrogates"} & seen


def test_installed_packages_are_linked_into_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    for name in ("penstock", "penstock_solvers", "torch"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(f"print('{name}')")
    monkeypatch.setattr(interpreters, "_package", lambda name: site / name)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    (folder,) = package_folders()
    assert sorted(path.name for path in folder.iterdir()) == ["penstock", "penstock_solvers"]
    assert package_folders() == [folder]  # again, with the links there
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import penstock, penstock_solvers; import torch"],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["penstock", "penstock_solvers"]
    assert "No module named 'torch'" in done.stderr


def test_links_to_an_older_installation_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    for site in (tmp_path / "old/site-packages", tmp_path / "new/site-packages"):
        for name in ("penstock", "penstock_solvers"):
            (site / name).mkdir(parents=True)
        monkeypatch.setattr(interpreters, "_package", lambda name, site=site: site / name)
        (folder,) = package_folders()
        assert (folder / "penstock").resolve() == site / "penstock"


@pytest.mark.solvers
def test_the_solvers_run_in_the_interpreter_that_was_found() -> None:
    interpreter = find_interpreter()
    done = subprocess.run(
        [interpreter.path, "-c", "import penstock, penstock_solvers.heat_numpy, zmq, dolfinx"],
        env={**os.environ, **solver_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

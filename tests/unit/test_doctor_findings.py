"""What `penstock doctor` finds, what it advises, and when it says that nothing works."""

from __future__ import annotations

import io
import re
import resource
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from penstock_server import doctor
from penstock_server.doctor import Finding, examine, healthy, report
from penstock_server.interpreters import Interpreter, SolverError, Starter

GIB = 1 << 30


def printed(*findings: Finding) -> str:
    file = io.StringIO()
    report(findings, Console(file=file, width=160))
    return re.sub(r"\s+", " ", file.getvalue())


def test_this_machine_runs_at_least_numpy_solvers() -> None:
    file = io.StringIO()
    assert doctor.doctor(Console(file=file, width=160)) == 0
    assert "`penstock run` works here" in file.getvalue()


def test_every_subject_is_examined() -> None:
    subjects = {finding.what for finding in examine()}
    assert {
        *("server Python", "server packages", "GPU", "DOLFINx", "MPI", "C compiler"),
        *("shared memory", "memory", "large pages", "cores", "open files", "Prometheus"),
    } <= subjects


def test_a_missing_server_package_is_named_with_the_command_that_brings_it() -> None:
    def installed(name: str) -> str:
        if name in ("ray", "h5py"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    findings = list(doctor.server_packages(installed))
    assert not healthy(findings)
    assert findings[-1].found == "without ray, h5py"
    assert findings[-1].advice == 'from a checkout: pip install ".[server]"'


def test_too_little_shared_memory_keeps_runs_from_working() -> None:
    small = doctor.shared_memory(64 << 20, 64 << 20)
    assert small.state == "missing"
    assert "--shm-size" in small.advice
    assert doctor.shared_memory(8 * GIB, 4 * GIB).state == "ok"


@pytest.mark.parametrize(
    ("enabled", "state"),
    [
        ("always madvise [never]\n", "note"),
        ("always [madvise] never\n", "ok"),
        ("[always] madvise never\n", "ok"),
        (None, "ok"),
    ],
)
def test_large_pages_that_are_switched_off_are_noted(
    tmp_path: Path, enabled: str | None, state: str
) -> None:
    file = tmp_path / "enabled"
    if enabled is not None:
        file.write_text(enabled)
    found = doctor.large_pages(file)
    assert found.state == state
    assert ("echo madvise" in found.advice) == (state == "note")


@pytest.mark.parametrize(
    ("soft", "hard", "state", "advice"),
    [
        (1024, 1048576, "note", "ulimit -n 65536"),
        (1024, 2048, "note", "ulimit -n 2048"),
        (65536, 65536, "ok", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", ""),
    ],
)
def test_few_open_files_are_noted(soft: int, hard: int, state: str, advice: str) -> None:
    finding = doctor.open_files(soft, hard)
    assert finding.state == state
    assert advice in finding.advice


def test_an_mpirun_of_another_mpi_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_starter", lambda _: Starter("/m", "Open MPI", (4, 1)))
    finding = doctor.mpi(Interpreter("/py", "3.12", {}, "MPICH"))
    assert finding.state == "note"
    assert "every rank runs alone" in finding.advice
    assert doctor.mpi(Interpreter("/py", "3.12", {}, "Open MPI")).state == "ok"


def test_no_mpirun_is_noted_and_does_not_hinder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_starter", lambda _: None)
    finding = doctor.mpi(Interpreter("/py", "3.12"))
    assert finding.state == "note"
    assert "mpi_ranks = 1 needs none" in finding.advice


def test_a_machine_without_dolfinx_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Interpreter("/py", "3.12", {"numpy": "2"})
    monkeypatch.setattr(doctor, "find_interpreter", lambda: bare)
    monkeypatch.setattr(doctor, "candidates", lambda: ["/py"])
    monkeypatch.setattr(doctor, "probe", lambda _: bare)
    finding = next(doctor.solver_interpreter())
    assert finding.state == "note"
    assert "python3-dolfinx" in finding.advice
    assert "environment.yml" in finding.advice


def test_an_interpreter_that_lacks_pyzmq_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Interpreter("/conda/python", "3.12", {"dolfinx": "0.9", "numpy": "2"})
    monkeypatch.setattr(doctor, "find_interpreter", lambda: Interpreter("/own", "3.12"))
    monkeypatch.setattr(doctor, "candidates", lambda: ["/own", "/conda/python"])
    monkeypatch.setattr(doctor, "probe", lambda path: lacking if "conda" in path else None)
    finding = next(doctor.solver_interpreter())
    assert "/conda/python has DOLFINx 0.9, without petsc4py, mpi4py, pyzmq" in finding.found


def test_a_wrong_interpreter_in_the_environment_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Interpreter:
        raise SolverError("PENSTOCK_SOLVER_PYTHON = /x does not run.")

    monkeypatch.setattr(doctor, "find_interpreter", refuse)
    (finding,) = doctor.solver_interpreter()
    assert finding.state == "missing"


@pytest.mark.parametrize(
    ("findings", "sentence"),
    [
        ([Finding("DOLFINx", "ok", ""), Finding("MPI", "ok", "")], "solvers under MPI"),
        ([Finding("DOLFINx", "ok", ""), Finding("MPI", "note", "")], "on one rank each"),
        ([Finding("DOLFINx", "note", "")], "works here, with numpy solvers"),
        ([Finding("shared memory", "missing", "")], "does not work here yet"),
    ],
)
def test_the_last_line_says_what_works(findings: list[Finding], sentence: str) -> None:
    assert sentence in printed(*findings)


def test_what_was_found_is_printed_as_it_is() -> None:
    assert 'pip install ".[server]"' in printed(
        Finding("server packages", "missing", "without ray", 'pip install ".[server]"')
    )

"""Finds the interpreter that sees DOLFINx and the MPI that fits it; launcher and doctor call it.

Solvers run in an interpreter of their own, which shares nothing with the server but the two
pure Python packages penstock and penstock_solvers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from penstock_server.config import Campaign

NEEDED = ("dolfinx", "petsc4py", "mpi4py", "numpy", "zmq")
PROBE_S = 60.0

# Runs in the interpreter that is examined. Nothing of MPI is initialised: a process that calls
# MPI_Init without mpirun can leave daemons and shared memory behind.
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, sys
names = {"dolfinx": "fenics-dolfinx", "zmq": "pyzmq"}
found = {}
for module in MODULES:
    if importlib.util.find_spec(module) is None:
        continue
    try:
        found[module] = metadata.version(names.get(module, module))
    except metadata.PackageNotFoundError:
        found[module] = "unknown"
mpi = ""
if "mpi4py" in found:
    try:
        import mpi4py
        mpi4py.rc.initialize = False
        from mpi4py import MPI
        mpi = MPI.Get_library_version()
    except Exception as error:
        mpi = "broken: " + str(error)
print(json.dumps({"version": ".".join(map(str, sys.version_info[:3])), "found": found, "mpi": mpi}))
"""


class SolverError(RuntimeError):
    """The solver of a campaign cannot be started on this machine; the text says what to do."""


class Command(NamedTuple):
    argv: list[str]
    env: dict[str, str]  # to be set on top of the inherited environment


@dataclass(frozen=True)
class Interpreter:
    """A Python and what it has: module name -> version."""

    path: str
    version: str
    found: Mapping[str, str] = field(default_factory=dict)
    mpi: str = ""  # "Open MPI", "MPICH", "Intel MPI", or "" if unknown

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(module for module in NEEDED if module not in self.found)

    @property
    def sees_dolfinx(self) -> bool:
        """Whether the FEniCSx solvers run in it."""
        return not self.missing


@dataclass(frozen=True)
class Starter:
    """An mpirun or mpiexec."""

    path: str
    flavour: str
    version: tuple[int, ...] = ()

    def argv(self, ranks: int) -> list[str]:
        if self.flavour != "Open MPI":
            return [self.path, "-n", str(ranks)]
        # Several workers share a machine: without bind-to none each of them binds to core 0.
        oversubscribe = (
            ["--map-by", ":OVERSUBSCRIBE"] if self.version >= (5,) else ["--oversubscribe"]
        )
        return [self.path, *oversubscribe, "--bind-to", "none", "-n", str(ranks)]


def solver_command(campaign: Campaign) -> Command:
    """What an agent starts for one worker of the campaign: arguments and environment.

    {python} is the interpreter that sees DOLFINx, {server} this one.

    Raises SolverError if the program or the MPI does not exist.
    """
    solver = campaign.solver
    interpreter = find_interpreter() if any("{python}" in a for a in solver.command) else None
    python = interpreter.path if interpreter else sys.executable
    argv = [
        argument.replace("{python}", python).replace("{server}", sys.executable)
        for argument in solver.command
    ]
    path = solver.env.get("PATH", os.environ.get("PATH"))
    if shutil.which(argv[0], path=path) is None:
        raise SolverError(
            f"The solver command {argv[0]} was not found or is not executable. Give a path, or a "
            "program on PATH, in solver.command; relative paths start at the current folder."
        )
    env = solver_environment()
    if solver.mpi_ranks > 1:
        starter = find_starter(interpreter)
        if starter is None:
            raise SolverError(
                f"solver.mpi_ranks = {solver.mpi_ranks} needs mpirun or mpiexec, and neither is "
                "on PATH. Install an MPI (Debian: apt-get install openmpi-bin; conda: openmpi), "
                "or set solver.mpi_ranks = 1."
            )
        if interpreter and interpreter.mpi and starter.flavour != interpreter.mpi:
            raise SolverError(
                f"mpi4py of {interpreter.path} was built with {interpreter.mpi}, but "
                f"{starter.path} is of {starter.flavour}: every rank would run alone. Put the "
                f"mpirun of {interpreter.mpi} on PATH."
            )
        argv = [*starter.argv(solver.mpi_ranks), *argv]
    return Command(argv, {**env, **solver.env})


def solver_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every solver process needs in its environment besides what it inherits."""
    inherited = [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    folders = [str(folder) for folder in package_folders()]
    env = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*folders, *inherited])),
        "OMP_NUM_THREADS": "1",
        # Ranks that wait must leave the core to the others and to training.
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "XDG_CACHE_HOME": str(cache_folder()),
    }
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def find_interpreter() -> Interpreter:
    """The first interpreter that sees DOLFINx; else this one, which runs the numpy solvers.

    PENSTOCK_SOLVER_PYTHON wins over everything. Raises SolverError if it does not run.
    """
    chosen = os.environ.get("PENSTOCK_SOLVER_PYTHON")
    if chosen:
        interpreter = probe(shutil.which(chosen) or chosen)
        if interpreter is None:
            raise SolverError(
                f"PENSTOCK_SOLVER_PYTHON = {chosen} does not run as a Python interpreter. "
                "Set it to the path of one, or unset it."
            )
        return interpreter
    for path in candidates():
        interpreter = probe(path)
        if interpreter is not None and interpreter.sees_dolfinx:
            return interpreter
    return probe(sys.executable) or Interpreter(sys.executable, sys.version.split()[0])


def candidates() -> list[str]:
    """Paths of interpreters to look at, the likeliest first, each once."""
    paths = [sys.executable]
    if prefix := os.environ.get("CONDA_PREFIX"):
        paths.append(str(Path(prefix) / "bin" / "python"))
    paths.append("/usr/bin/python3")
    paths += filter(None, [shutil.which("python3"), shutil.which("python")])
    return [path for path in dict.fromkeys(paths) if os.access(path, os.X_OK)]


@cache
def probe(path: str) -> Interpreter | None:
    """What an interpreter has, or None if it does not run."""
    program = _PROBE.replace("MODULES", repr(NEEDED))
    # Without PYTHONPATH: the server's own packages must not be taken for the solver's.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [path, "-c", program],
            check=False,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            env=env,
        )
        told = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return Interpreter(path, told["version"], told["found"], flavour_of(told["mpi"])[0])


def find_starter(interpreter: Interpreter | None = None) -> Starter | None:
    """The mpirun whose MPI is the interpreter's; with another one every rank would be alone."""
    starters = list(_starters(interpreter))
    wanted = interpreter.mpi if interpreter else ""
    fitting = [starter for starter in starters if wanted and starter.flavour == wanted]
    return next(iter(fitting or starters), None)


def _starters(interpreter: Interpreter | None) -> Iterator[Starter]:
    names = ("mpirun", "mpiexec", "mpirun.openmpi", "mpirun.mpich", "mpiexec.hydra")
    found: list[str] = []
    if interpreter is not None:
        beside = str(Path(interpreter.path).parent)
        found += filter(None, (shutil.which(name, path=beside) for name in names))
    found += filter(None, map(shutil.which, names))
    for path in dict.fromkeys(found):
        if starter := _starter(path):
            yield starter


@cache
def _starter(path: str) -> Starter | None:
    try:
        done = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, timeout=PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    flavour, version = flavour_of(done.stdout + done.stderr)
    return Starter(path, flavour or "unknown", version)


def flavour_of(text: str) -> tuple[str, tuple[int, ...]]:
    """The MPI and its version, from `mpirun --version` or MPI_Get_library_version."""
    known = {
        "Open MPI": ("Open MPI", "OpenRTE", "PRRTE"),
        "Intel MPI": ("Intel(R) MPI",),
        "MPICH": ("MPICH", "HYDRA"),
    }
    for flavour, marks in known.items():
        if any(mark in text for mark in marks):
            number = re.search(r"\d+(\.\d+)+", text)
            return flavour, tuple(map(int, number.group().split("."))) if number else ()
    return "", ()


def checkout() -> Path | None:
    """The root of the repository this server runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "clients" / "penstock").is_dir() else None


def cache_folder() -> Path:
    """The project's own cache, where compiled forms are kept: .cache/ of a checkout or the home's.

    Never the user's common cache: a solver killed while it compiles leaves a form there that
    every later FEniCSx program would wait for.
    """
    if chosen := os.environ.get("PENSTOCK_CACHE"):
        return Path(chosen).absolute()
    root = checkout()
    if root is not None and os.access(root, os.W_OK):
        return root / ".cache"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "penstock"


def package_folders() -> list[Path]:
    """Folders for PYTHONPATH that hold penstock and penstock_solvers and no other package.

    In a checkout these are clients/ and solvers/. Installed packages lie among everything that
    the server needs, which another interpreter must not see; they are linked into a folder.
    """
    packages = [_package(name) for name in ("penstock", "penstock_solvers")]
    if not any(_crowded(package.parent) for package in packages):
        return [package.parent for package in packages]
    folder = cache_folder() / f"for-solvers-{sys.version_info[0]}.{sys.version_info[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _link(folder / package.name, package)
    return [folder]


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SolverError(
            f"The package {name} is not installed beside the server; "
            'install all of it, from a checkout: pip install ".[server]".'
        )
    return Path(spec.origin).resolve().parent


def _crowded(folder: Path) -> bool:
    """Whether a folder holds installed distributions, as site-packages does."""
    return any(folder.glob("*.dist-info")) or folder.name in ("site-packages", "dist-packages")


def _link(link: Path, target: Path) -> None:
    """Makes or renews a symbolic link in one move, so that two starts at once do not collide."""
    if link.is_symlink() and link.resolve() == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(target, target_is_directory=True)
    fresh.replace(link)

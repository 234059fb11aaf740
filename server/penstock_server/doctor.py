"""What this machine has for Penstock, what is missing and how to get it; `penstock doctor`."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock_server.interpreters import (
    Interpreter,
    SolverError,
    cache_folder,
    candidates,
    find_interpreter,
    find_starter,
    probe,
)

SHARED_MEMORY = Path("/dev/shm")
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LEAST_SHARED_BYTES = 256 << 20
LEAST_FILES = 4096
INSTALL = 'from a checkout: pip install ".[server]"'
PACKAGES = (
    "torch",
    "ray",
    "pyzmq",
    "pydantic",
    "scipy",
    "safetensors",
    "matplotlib",
    "h5py",
    "prometheus_client",
)

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; only what is `missing` keeps `penstock run` from working."""

    what: str
    state: State
    found: str
    advice: str = ""


def doctor(console: Console | None = None) -> int:
    """Prints the findings; 0 if `penstock run` works at least on a numpy solver, else 1."""
    findings = list(examine())
    report(findings, console or Console())
    return 0 if healthy(findings) else 1


def examine() -> Iterator[Finding]:
    """Everything that `penstock doctor` looks at, the server first."""
    yield from server_packages()
    yield accelerator()
    yield from solver_interpreter()
    yield compiler()
    yield shared_memory(*shutil.disk_usage(SHARED_MEMORY)[::2])
    yield memory()
    yield large_pages()
    yield cores()
    yield open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield optional("Prometheus", "prometheus", "only to look at metrics over time")
    yield optional("SLURM", "sbatch", "only to run on a cluster with SLURM")


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.state != "missing" for finding in findings)


def report(findings: Iterable[Finding], console: Console) -> None:
    findings = list(findings)
    table = Table(title="penstock doctor", title_justify="left", show_lines=False)
    for column in ("", "what", "found", "to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "missing": ("missing", "bold red")}
    for finding in findings:
        mark, style = marks[finding.state]
        table.add_row(Text(mark, style), finding.what, Text(finding.found), Text(finding.advice))
    console.print(table)
    dolfinx = any(f.what == "DOLFINx" and f.state == "ok" for f in findings)
    mpi = any(f.what == "MPI" and f.state == "ok" for f in findings)
    if not healthy(findings):
        console.print("`penstock run` does not work here yet; see what is missing above.")
    elif dolfinx and mpi:
        console.print("`penstock run` works here, with FEniCSx solvers under MPI.")
    elif dolfinx:
        console.print("`penstock run` works here, with FEniCSx solvers on one rank each.")
    else:
        console.print("`penstock run` works here, with numpy solvers.")


def server_packages(installed: Callable[[str], str] = metadata.version) -> Iterator[Finding]:
    """The server's own interpreter and its packages."""
    yield Finding("server Python", "ok", f"{platform.python_version()} at {sys.executable}")
    versions, absent = [], []
    for distribution in PACKAGES:
        try:
            versions.append(f"{distribution} {installed(distribution)}")
        except metadata.PackageNotFoundError:
            absent.append(distribution)
    if absent:
        yield Finding("server packages", "missing", f"without {', '.join(absent)}", INSTALL)
    else:
        yield Finding("server packages", "ok", ", ".join(versions))


def accelerator() -> Finding:
    """A GPU that torch can use."""
    try:
        import torch
    except Exception as error:  # a library that torch needs may be broken, too
        return Finding("torch", "missing", str(error), INSTALL)
    if not torch.cuda.is_available():
        built = torch.version.cuda or "none"
        text = f"no GPU that torch sees (built for CUDA: {built}); training runs on CPU cores"
        advice = "install a CUDA build of torch" if shutil.which("nvidia-smi") else ""
        return Finding("GPU", "note" if advice else "ok", text, advice)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", f"{', '.join(names)}; CUDA {torch.version.cuda}")


def solver_interpreter() -> Iterator[Finding]:
    """The interpreter with DOLFINx, and the mpirun that fits it."""
    try:
        interpreter = find_interpreter()
    except SolverError as error:
        yield Finding("DOLFINx", "missing", str(error), "unset PENSTOCK_SOLVER_PYTHON")
        return
    if interpreter.sees_dolfinx:
        versions = ", ".join(f"{name} {version}" for name, version in interpreter.found.items())
        yield Finding("DOLFINx", "ok", f"{versions} at {interpreter.path}")
    else:
        yield Finding("DOLFINx", "note", *_no_dolfinx())
    yield mpi(interpreter)


def mpi(interpreter: Interpreter) -> Finding:
    starter = find_starter(interpreter)
    if starter is None:
        advice = "apt-get install openmpi-bin, or conda install openmpi; mpi_ranks = 1 needs none"
        return Finding("MPI", "note", "neither mpirun nor mpiexec", advice)
    version = ".".join(map(str, starter.version))
    text = f"{starter.flavour} {version} at {starter.path}"
    if interpreter.mpi and interpreter.mpi != starter.flavour:
        text += f", but mpi4py of {interpreter.path} is of {interpreter.mpi}"
        advice = f"put the mpirun of {interpreter.mpi} on PATH, or every rank runs alone"
        return Finding("MPI", "note", text, advice)
    return Finding("MPI", "ok", text)


def _no_dolfinx() -> tuple[str, str]:
    """What the interpreters lack, and how to get it: (found, advice)."""
    for path in candidates():
        interpreter = probe(path)
        if interpreter is not None and "dolfinx" in interpreter.found:
            names = [{"zmq": "pyzmq"}.get(name, name) for name in interpreter.missing]
            text = f"{path} has DOLFINx {interpreter.found['dolfinx']}, without {', '.join(names)}"
            return text, f"install {' and '.join(names)} there; Debian: python3-zmq"
    advice = (
        "Debian, as root: apt-get install python3-dolfinx python3-zmq; "
        "conda: conda env create -f environment.yml; or set PENSTOCK_SOLVER_PYTHON"
    )
    return f"in none of {', '.join(candidates())}", advice


def compiler() -> Finding:
    """DOLFINx compiles its forms with it."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            cache = cache_folder() / "fenics"
            files = len(list(cache.glob("*.c.cached"))) if cache.is_dir() else 0
            return Finding("C compiler", "ok", f"{path}; {files} compiled forms in {cache}")
    return Finding("C compiler", "note", "none", "FEniCSx solvers need one: apt-get install gcc")


def shared_memory(total: int, free: int) -> Finding:
    """The reservoir's slabs and the snapshots live there; in bytes."""
    text = f"{_size(free)} free of {_size(total)} in {SHARED_MEMORY}"
    if free < LEAST_SHARED_BYTES:
        advice = "give it more: docker run --shm-size=4g, or mount -o remount,size=50% /dev/shm"
        return Finding("shared memory", "missing", text, advice)
    return Finding("shared memory", "ok", text)


def memory() -> Finding:
    machine = psutil.virtual_memory()
    text = f"{_size(machine.available)} available of {_size(machine.total)}"
    limit = _control_group("memory.max")
    if limit is not None and limit < machine.total:
        text += f"; limited to {_size(limit)} here"
    low = machine.available < 3 << 30
    advice = "the server and Ray alone take about 2 GiB; close other programs" if low else ""
    return Finding("memory", "note" if low else "ok", text, advice)


def large_pages(enabled: Path = LARGE_PAGES) -> Finding:
    """What is on its way over TCP lies in them, if a program gets any."""
    try:
        never = "[never]" in enabled.read_text()
    except OSError:
        return Finding("large pages", "ok", "this system has none to be asked for")
    if never:
        advice = (
            f"as root: echo madvise > {enabled}; memory that is new costs several times as much"
        )
        return Finding("large pages", "note", "switched off", advice)
    return Finding("large pages", "ok", "for programs that ask")


def cores() -> Finding:
    usable = len(os.sched_getaffinity(0))
    text = f"{usable} usable of {os.cpu_count()}"
    advice = "solvers and training share one core; it works, slowly" if usable < 2 else ""
    return Finding("cores", "note" if advice else "ok", text, advice)


def open_files(soft: int, hard: int) -> Finding:
    """Ray and ZeroMQ keep many sockets open."""
    unlimited = resource.RLIM_INFINITY
    text = "unlimited" if soft == unlimited else f"{soft} (could be {_limit(hard)})"
    if soft != unlimited and soft < LEAST_FILES:
        return Finding("open files", "note", text, f"ulimit -n {_least(hard)} before many workers")
    return Finding("open files", "ok", text)


def optional(what: str, program: str, purpose: str) -> Finding:
    path = shutil.which(program)
    return Finding(what, "ok", path or f"not here; needed {purpose}")


def _control_group(name: str) -> int | None:
    """A limit of the container that this process runs in, or None."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):
        return None


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _least(hard: int) -> int:
    return 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)


def _size(n_bytes: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"

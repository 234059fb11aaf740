"""Compiles the forms of all FEniCSx solvers into the JIT cache; called at set-up.

    python -m penstock_solvers.warm

The cache is $XDG_CACHE_HOME/fenics. A process that dies while it compiles leaves NAME.c without
NAME.c.cached, and every later process waits for it and fails ("JIT compilation timed out"): such
leftovers are removed first. Signatures are made stable by compat.compile_form, so that one pass
fills the cache; a second process makes sure of it and repeats where it does not hold.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

MODULE = "penstock_solvers.warm"
PASSES = 5


def cache_folder() -> Path:
    """Where DOLFINx keeps compiled forms."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenics"


def leftovers(folder: Path) -> list[Path]:
    """C files whose compilation has not finished: interrupted, or under way in another process."""
    return [file for file in sorted(folder.glob("*.c")) if not _done(file).exists()]


def remove_leftovers(folder: Path, patience_s: float = 20.0) -> list[Path]:
    """Removes interrupted compilations; those begun less than `patience_s` ago may still finish."""
    removed = []
    for file in leftovers(folder):
        while not _done(file).exists() and _age_s(file) < patience_s:
            time.sleep(0.1)
        if not _done(file).exists():
            file.unlink(missing_ok=True)
            removed.append(file)
    return removed


def compile_all() -> None:
    """Builds every FEniCSx solver once, on the smallest grid."""
    from mpi4py import MPI

    from penstock_solvers import heat, heat_nonlinear

    heat.Heat(MPI.COMM_SELF, n=3)
    heat_nonlinear.HeatNonlinear(MPI.COMM_SELF, n=3)


def warm() -> int:
    """Fills the cache; returns the number of passes that compiled something (0: it was warm)."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "penstock-warm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in remove_leftovers(folder):
            print(f"Removed {file.name}: its compilation was interrupted.")
        for compiled in range(PASSES):
            before = set(folder.glob("*.c"))
            subprocess.run([sys.executable, "-m", MODULE, "--compile"], check=True)
            if set(folder.glob("*.c")) == before:
                return compiled
    print(f"The cache still grows after {PASSES} passes: form signatures vary from run to run.")
    return PASSES


def main() -> None:
    """Warms the cache and says how long it took; exits with an error where DOLFINx is missing."""
    if "--compile" in sys.argv[1:]:
        compile_all()
        return
    begin = time.perf_counter()
    compiled = warm()
    seconds = time.perf_counter() - begin
    state = "was warm" if compiled == 0 else f"is warm after {compiled} pass(es)"
    print(f"The cache {cache_folder()} {state}; {seconds:.1f} s.")


def _done(file: Path) -> Path:
    return file.with_name(file.name + ".cached")


def _age_s(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


if __name__ == "__main__":
    main()

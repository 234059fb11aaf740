"""Who may import whom: the packages, and inside the server the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENICS = {"dolfinx", "ufl", "basix", "ffcx", "mpi4py", "petsc4py", "slepc4py"}

PACKAGES = {
    "penstock": ROOT / "clients" / "penstock",
    "penstock_solvers": ROOT / "solvers" / "penstock_solvers",
    "penstock_surrogates": ROOT / "surrogates" / "penstock_surrogates",
    "penstock_server": ROOT / "server" / "penstock_server",
}
# Besides the standard library and the package itself.
ALLOWED = {
    "penstock": {"numpy", "zmq"},
    "penstock_solvers": {"penstock", "numpy", *FENICS},
    "penstock_surrogates": {"torch", "numpy", "safetensors"},
    "penstock_server": {
        "penstock",
        "penstock_surrogates",
        "h5py",
        "jinja2",
        "matplotlib",
        "meshio",
        "numpy",
        "prometheus_client",
        "psutil",
        "pydantic",
        "pydantic_core",
        "ray",
        "rich",
        "safetensors",
        "scipy",
        "tomli_w",
        "torch",
        "typer",
        "zmq",
    },
}
# Exceptions of one file: the helper for DOLFINx functions is imported by those who have them.
ALSO = {
    "clients/penstock/dolfinx.py": FENICS,
    "clients/penstock/wrapping/formats.py": {"h5py", "meshio"},  # when such a file is read
}
# In the server a heavy library lives in one file or folder; scipy has two: samplers, quantiles.
HOMES = {
    "ray": ("launch/ray_ranks.py",),
    "prometheus_client": ("metrics.py",),
    "scipy": ("design.py", "compare/statistics.py"),
    "jinja2": ("report/page.py",),
    "matplotlib": ("pictures/",),
    "meshio": ("vtu.py",),
}
# Of the client the server takes the wire, the control path and the process table, not the link;
# only `penstock fill` is a worker itself.
FILL = "server/penstock_server/fill.py"
CLIENT_MODULES = {
    "penstock.wire",
    "penstock.control",
    "penstock.errors",
    "penstock.keys",
    "penstock.processes",
}


def sources() -> list[tuple[str, Path]]:
    return [(name, path) for name, root in PACKAGES.items() for path in sorted(root.rglob("*.py"))]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module, line) of every import of a file, wherever it stands; relative ones left out.

    `from a import b` counts as a.b, because b may be a module.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def offences(package: str, path: Path) -> list[str]:
    relative = path.relative_to(ROOT).as_posix()
    allowed = ALLOWED[package] | ALSO.get(relative, set()) | {package}
    found = []
    for module, line in imports(path):
        top = module.partition(".")[0]
        where = f"{relative}, line {line}"
        if top in sys.stdlib_module_names:
            continue
        if top not in allowed:
            found.append(f"{where}: {package} may not import {top}")
        elif package == "penstock_server" and top in HOMES:
            homes = [f"server/penstock_server/{home}" for home in HOMES[top]]
            if not any(relative == h or (h[-1] == "/" and relative.startswith(h)) for h in homes):
                found.append(f"{where}: {top} may be imported in {' and '.join(homes)} alone")
        elif package == "penstock_server" and top == "penstock":
            parts = ".".join(module.split(".")[:2])
            if parts not in CLIENT_MODULES and relative != FILL:
                found.append(f"{where}: of the client the server may import its wire, not {parts}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = [path for name, path in sources() if name == package]
    assert files, f"{PACKAGES[package]} holds no Python file"
    found = [offence for path in files for offence in offences(package, path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("package", "file", "line"),
    [
        ("penstock", "clients/penstock/x.py", "import torch"),
        ("penstock", "clients/penstock/x.py", "def f():\n    from penstock_server import config"),
        ("penstock_solvers", "solvers/penstock_solvers/x.py", "import penstock_surrogates"),
        ("penstock_surrogates", "surrogates/penstock_surrogates/x.py", "from ray import train"),
        ("penstock_server", "server/penstock_server/x.py", "import ray.train"),
        ("penstock_server", "server/penstock_server/x.py", "from penstock_solvers import heat"),
        ("penstock_server", "server/penstock_server/x.py", "from penstock import connect"),
    ],
)
def test_a_forbidden_import_is_found(
    package: str, file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert len(offences(package, path)) == 1


def test_importing_the_client_loads_nothing_heavy() -> None:
    program = (
        "import sys, penstock, penstock.command, penstock.wrap\n"
        "heavy = {'torch', 'ray', 'scipy', 'pydantic', 'mpi4py', 'dolfinx', 'h5py', 'meshio',"
        " 'penstock_server'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_bare_installation_asks_for_numpy_and_pyzmq_alone() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"numpy", "pyzmq"}

"""Durations come from clocks that do not jump: no part asks the wall clock for one.

time.time_ns() is left for numbers that only have to differ (sessions, incarnations, epochs).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ("clients/penstock", "solvers/penstock_solvers", "surrogates", "server/penstock_server")
WALL = {("time", "time"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}
C_WALL = re.compile(
    r"\b(gettimeofday|CLOCK_REALTIME|time\s*\(\s*(NULL|0|nullptr)\s*\)|system_clock)"
)
# The age of a file that another process may be compiling, which only the wall clock knows.
KNOWN = {"solvers/penstock_solvers/warm.py"}


def wall_clocks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in WALL:
                yield f"{owner}.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (alias.name for alias in node.names if alias.name == "time")


def test_no_python_asks_the_wall_clock_for_a_time() -> None:
    found = {}
    for folder in PYTHON:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if clocks := list(wall_clocks(ast.parse(path.read_text(encoding="utf-8")))):
                found[str(path.relative_to(ROOT))] = clocks
    assert found.keys() == KNOWN, found


def test_no_c_nor_fortran_asks_the_wall_clock_for_a_time() -> None:
    files = [
        path
        for folder in ("clients/c", "clients/fortran")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".c", ".h", ".hpp", ".cpp", ".f90"} and "tests" not in path.parts
    ]
    assert files
    assert not [str(path) for path in files if C_WALL.search(path.read_text(encoding="utf-8"))]

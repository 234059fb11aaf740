"""The scanner that says on which line a key stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.toml_lines import key_lines

TEXT = '''\
# a comment with [brackets] and "quotes
name = "a # no comment"  # a comment
"quoted key" = 'literal \\'

[solver]
command = [
    "one",  # with ] in a comment
    "two]",
]
text = """
fake = 1
[fake]
"""
raw = \'\'\'
also = "fake"\'\'\'
after.dotted.key = 2026-01-01 12:00:00

[design.parameters]
T0 = { low = 1, high = [1, 2], deep = { x = "}" } }
T1.low = 3
   [fields."odd name".x]   # indented
empty = ""
[[runs]]
a = 1
[[runs]]
a = 2
[runs.sub]
b = 3
'''

EXPECTED = {
    "name": 2,
    "quoted key": 3,
    "solver": 5,
    "solver/command": 6,
    "solver/command/0": 7,
    "solver/command/1": 8,
    "solver/text": 10,
    "solver/raw": 14,
    "solver/after/dotted/key": 16,
    "design": 18,
    "design/parameters": 18,
    "design/parameters/T0": 19,
    "design/parameters/T0/low": 19,
    "design/parameters/T0/high/1": 19,
    "design/parameters/T0/deep/x": 19,
    "design/parameters/T1/low": 20,
    "fields/odd name/x": 21,
    "fields/odd name/x/empty": 22,
    "runs/0/a": 24,
    "runs/1": 25,
    "runs/1/a": 26,
    "runs/1/sub/b": 28,
}


@pytest.mark.parametrize(("key", "line"), EXPECTED.items())
def test_a_key_is_found_on_its_line(key: str, line: int) -> None:
    tomllib.loads(TEXT)  # the example itself is valid
    assert key_lines(TEXT)[tuple(key.split("/"))] == line


def test_no_key_is_found_inside_a_string() -> None:
    assert not [path for path in key_lines(TEXT) if "fake" in path or "also" in path]


def test_windows_line_ends_count_as_one_line() -> None:
    assert key_lines("a = 1\r\nb = 2\r\n") == {("a",): 1, ("b",): 2}


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=5)
scalars = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def paths(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    items: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(str(i), element) for i, element in enumerate(value)]
    found = {path} if path else set()
    for name, element in items:
        found |= paths(element, (*path, name))
    return found


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, values, max_size=4))
def test_every_key_that_a_parser_sees_has_a_line(data: dict[str, Any]) -> None:
    text = tomli_w.dumps(data)
    assert set(key_lines(text)) == paths(tomllib.loads(text))

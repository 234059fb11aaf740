"""CAMPAIGN.md names every key of the campaign file as the code has it, and no other."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from penstock_server import cli
from penstock_server.config import Campaign, parse
from penstock_server.mistakes import NAME_OR_REFERENCE, REFERENCE
from penstock_server.tables import Table

PAGE = (Path(__file__).parents[2] / "server" / "CAMPAIGN.md").read_text(encoding="utf-8")
TOP = "Before the first table"
BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "", Any: ""}
UNITS = {"_s": "seconds", "_bytes": "bytes"}


@dataclass(frozen=True)
class Row:
    default: str
    kind: str
    meaning: str


def rows() -> dict[tuple[str, str], Row]:
    """(section, key) -> what the page says of it."""
    found: dict[tuple[str, str], Row] = {}
    section = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`")
        elif line.startswith("| `"):
            key, default, kind, meaning = (cell.strip() for cell in line.strip("| ").split(" | "))
            assert (section, key) not in found, f"{section} {key} stands there twice"
            found[section, key.strip("`")] = Row(default, kind, meaning)
    return found


def table_in(annotation: Any) -> tuple[type[Table] | None, str]:
    """The table that a key of the file holds, and what is added to its name."""
    added = ""
    while typing.get_origin(annotation) in (Annotated, dict):
        named = typing.get_origin(annotation) is dict
        annotation = typing.get_args(annotation)[int(named)]
        added = ".NAME" if named else added
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation, added
    return None, ""


def keys(model: type[Table] = Campaign, path: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """(section, key, field) of every key that has a value, not a table of keys."""
    for name, field in model.model_fields.items():
        inner, added = table_in(field.annotation)
        if inner is None:
            yield (f"[{path}]" if path else TOP), name, field
        else:
            yield from keys(inner, f"{path}.{name}{added}".lstrip("."))


KEYS = list(keys())
EVERY_KEY = pytest.mark.parametrize(
    ("section", "key", "field"), KEYS, ids=[f"{section} {key}" for section, key, _ in KEYS]
)


def words(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[str]:
    """What the page must say of the values that a key takes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from words(arguments[0], arguments[1:])
    elif origin is Literal:
        yield from (f'`"{choice}"`' for choice in arguments)
    elif origin in (typing.Union, types.UnionType):
        for each in arguments:
            yield from () if each is type(None) else words(each)
    elif origin is tuple:
        yield "array"
        for each in arguments:
            yield from () if each is Ellipsis else words(each)
    elif origin is dict:
        yield "table"
    else:
        yield KINDS[annotation]
    for entry in metadata:
        for each in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
            for name, word in BOUNDS.items():
                if getattr(each, name, None) is not None:
                    yield f"{word} {getattr(each, name)}"
            if getattr(each, "pattern", None) in (REFERENCE, NAME_OR_REFERENCE):
                yield '`"module:name"`'


def plain(value: Any) -> Any:
    """As TOML has it."""
    return [plain(each) for each in value] if isinstance(value, tuple) else value


@EVERY_KEY
def test_a_key_stands_in_its_section_with_the_default_of_the_code(
    section: str, key: str, field: FieldInfo
) -> None:
    row = rows()[section, key]
    assert row.meaning.endswith(".")
    if field.is_required():
        assert row.default == "required"
    elif field.default is None:
        assert row.default == "not set"
    else:
        told = tomllib.loads(f"x = {row.default.strip('`')}")["x"]
        assert (told, type(told)) == (plain(field.default), type(plain(field.default)))


@EVERY_KEY
def test_a_key_has_its_choices_range_and_unit(section: str, key: str, field: FieldInfo) -> None:
    kind = rows()[section, key].kind
    for word in words(field.annotation, field.metadata):
        assert word in kind, f"{section} {key} should say {word!r}: {kind}"
    for ending, unit in UNITS.items():
        assert unit in kind or not key.endswith(ending)


def test_no_key_is_named_that_does_not_exist() -> None:
    known = {(section, key) for section, key, _ in KEYS}
    assert set(rows()) == known
    dotted = {f"{section.strip('[]')}.{key}" for section, key in known}
    tables = {section.strip("[]").partition(".")[0] for section, _ in known}
    for name in re.findall(r"`(?:--set )?([a-z_]+(?:\.\w+)+)", PAGE):
        assert name in dotted or name.partition(".")[0] not in tables, name
    for name in re.findall(r"`([a-z_]+) = ", PAGE):
        assert name in {key for _, key in known}, name


def test_the_example_at_the_top_can_run(tmp_path: Path) -> None:
    match = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    assert parse(match[1]).name == "heat"
    (tmp_path / "campaign.toml").write_text(match[1])
    result = CliRunner().invoke(cli.app, ["check", str(tmp_path / "campaign.toml")])
    assert result.exit_code == 0, result.output
    assert "Note:" not in result.output

"""Mistakes in a campaign file as full sentences with file and line; called by `config`."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path = tuple[str, ...]

_MODULE_AND_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
WORD = r"^[A-Za-z_][A-Za-z0-9_]*$"
FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
REFERENCE = rf"^{_MODULE_AND_NAME}$"
NAME_OR_REFERENCE = rf"^([A-Za-z_]\w*|{_MODULE_AND_NAME})$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?)$"
PATTERNS = {
    WORD: "a name of letters, digits and '_' that starts with a letter",
    FOLDER: "a name of letters, digits, '.', '-' and '_' that starts with a letter or digit",
    REFERENCE: 'a reference such as "module:name"',
    NAME_OR_REFERENCE: 'a name or a reference such as "module:name"',
    DEVICE: 'one of "auto", "cpu", "cuda" or "cuda:0"',
}


class CampaignError(ValueError):
    """What is wrong with a campaign file; `problems` has one sentence for each mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    name: str,
    lines: Mapping[Path, int],
    overridden: Iterable[Path] = (),
) -> list[str]:
    """One sentence for each mistake, the first line of the file first.

    `lines` comes from `toml_lines.key_lines`; `overridden` are keys set on the command line.
    """
    placed: list[tuple[int, str]] = []
    for detail in error.errors(include_url=False):
        for path, text in _told(detail, model):
            line = _line(path, lines)
            if any(path[: len(key)] == key for key in overridden):
                where = f"--set {dotted(path)}"
            else:
                where = f"{name}, line {line}" if line else name
            placed.append((line, f"{where}: {text}"))
    unique = dict.fromkeys(sorted(placed, key=lambda item: item[0]))
    return [text for _, text in unique]


def dotted(path: Path) -> str:
    """The key as one writes it: fields.u.shape[0]."""
    return "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in path).removeprefix(".")


def _told(detail: ErrorDetails, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """The key paths and sentences of one error of pydantic."""
    path = _clean(detail["loc"], model)
    kind, context = detail["type"], detail.get("ctx", {})
    key, came = dotted(path), _shown(detail["input"])
    if kind == "conflict":
        told = []
        for relative, text in context["conflicts"]:
            full = (*path, *relative.split(".")) if relative else path
            told.append((full, f"`{dotted(full)}`: {text}"))
        return told
    if kind == "extra_forbidden":
        return [(path, _unknown(path, model))]
    if kind == "missing":
        table = f"[{'.'.join(path[:-1])}]" if path[1:] else "The campaign file"
        return [(path, f"{table} lacks the key `{path[-1]}`, which has no default.")]
    choices = _choices(path, model)
    if choices:
        given = str(detail["input"])
        also = _alternative(path, model)
        return [
            (
                path,
                f"`{key}` must be one of {', '.join(choices)}{also}, got {came}."
                + _closest(given, choices),
            )
        ]
    return [(path, f"`{key}` must be {_expected(kind, context, detail)}, got {came}.")]


def _unknown(path: Path, model: type[BaseModel]) -> str:
    table = _model_at(path[:-1], model)
    valid = sorted(table.model_fields) if table else []
    where = f"[{'.'.join(path[:-1])}]" if path[1:] else "the campaign file"
    text = f"Unknown key `{path[-1]}` in {where}.{_closest(path[-1], valid)}"
    if not path[1:]:
        return f"{text} Valid keys and tables are {', '.join(valid)}."
    return f"{text} Valid keys are {', '.join(valid)}."


def _expected(kind: str, context: Mapping[str, Any], detail: ErrorDetails) -> str:
    simple = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": 'a text in quotes ("..")',
        "bool_type": "true or false",
        "tuple_type": "an array ([..])",
        "dict_type": "a table",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "string_too_short": "a text that is not empty",
    }
    if kind in simple:
        return simple[kind]
    for bound, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        if bound in context:
            return f"{words} {context[bound]:g}"
    if kind == "too_short":
        least = context["min_length"]
        return f"{least} entry or more" if least == 1 else f"{least} entries or more"
    if kind == "too_long":
        return f"{context['max_length']} entries or fewer"
    if kind == "missing":
        return "longer"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(context["pattern"]), f"like {context['pattern']}")
    return f"valid ({detail['msg'].lower()})"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value}"'
    if isinstance(value, dict):
        return f"a table with {', '.join(map(str, value)) or 'nothing in it'}"
    return str(value)


def _closest(given: str, valid: Sequence[str]) -> str:
    lowered = {v.lower(): v for v in valid}
    near = difflib.get_close_matches(given.lower(), list(lowered), n=1, cutoff=0.6)
    return f" Did you mean {lowered[near[0]]}?" if near else ""


def _line(path: Path, lines: Mapping[Path, int]) -> int:
    """The line of the path or of its nearest parent; 0 if none stands in the text."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _clean(loc: tuple[int | str, ...], model: type[BaseModel]) -> Path:
    """The key path without the marks that pydantic adds for union members and dict keys."""
    path: Path = ()
    for part in map(str, loc):
        if part == "[key]":
            continue
        if _is_union(_annotation_at(path, model)) and not _continues(path, part, model):
            continue
        path = (*path, part)
    return path


def _continues(path: Path, part: str, model: type[BaseModel]) -> bool:
    return part.isdigit() or _annotation_at((*path, part), model) is not None


def _annotation_at(path: Path, model: type[BaseModel]) -> Any:
    """The annotation of a key, or None if there is no such key."""
    here: Any = model
    for part in path:
        here = _plain(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(part)
            here = field.annotation if field else None
        elif typing.get_origin(here) is dict:
            here = typing.get_args(here)[1]
        elif typing.get_origin(here) is tuple:
            here = typing.get_args(here)[0]
        else:
            return None
    return here


def _plain(annotation: Any) -> Any:
    """Without Annotated and without `| None`."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if _is_union(annotation):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) == 1:
            return _plain(members[0])
    return annotation


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _model_at(path: Path, model: type[BaseModel]) -> type[BaseModel] | None:
    here = _plain(_annotation_at(path, model))
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _choices(path: Path, model: type[BaseModel]) -> list[str]:
    """The words that a key takes, if it takes only some."""
    annotation = _plain(_annotation_at(path, model))
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    found: list[str] = []
    for member in members:
        if typing.get_origin(_plain(member)) is typing.Literal:
            found += map(str, typing.get_args(_plain(member)))
    return found


def _alternative(path: Path, model: type[BaseModel]) -> str:
    return ' or "module:name"' if _is_union(_plain(_annotation_at(path, model))) else ""

"""Find surrogates (and losses) by name, or as a user's own `module:Class`.

Called when the campaign file is checked, by the trainer, and by `load`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from penstock_surrogates.mlp import MLP
from penstock_surrogates.problem import Problem

SURROGATES: dict[str, type[nn.Module]] = {"mlp": MLP}


def find_surrogate(name: str) -> type[nn.Module]:
    """The class behind a name of `SURROGATES` or behind `module:Class`."""
    described = "; ".join(f"{known}({describe_options(cls)})" for known, cls in SURROGATES.items())
    found = find(name, SURROGATES, "surrogate", described)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(
            f"The surrogate {name!r} should be a class derived from torch.nn.Module, "
            f"but it is {found!r}."
        )
    return found


def build(name: str, problem: Problem, options: Mapping[str, Any]) -> nn.Module:
    """Make the surrogate; a wrong option is answered with the ones there are."""
    cls = find_surrogate(name)
    try:
        inspect.signature(cls).bind(problem, **options)
    except TypeError as error:
        raise ValueError(
            f"The surrogate {name!r} cannot be made with the options {dict(options)}: {error}. "
            f"Its options are: {describe_options(cls) or 'none'}."
        ) from error
    return cls(problem, **options)


def name_of(model: nn.Module) -> str:
    """The name under which `find_surrogate` finds this model's class again."""
    cls = type(model)
    for name, known in SURROGATES.items():
        if known is cls:
            return name
    return f"{cls.__module__}:{cls.__qualname__}"


def describe_options(cls: type[nn.Module]) -> str:
    """`hidden=(256, 256), activation='relu'`: the options of a surrogate with their defaults."""
    options = list(inspect.signature(cls).parameters.values())[1:]
    return ", ".join(
        option.name if option.default is option.empty else f"{option.name}={option.default!r}"
        for option in options
        if option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY)
    )


def find(
    name: str, known: Mapping[str, Any], what: str, described: str | None = None
) -> Callable[..., Any]:
    """Look `name` up in `known`, or import it if it is `module:attribute`."""
    if name in known:
        found: Callable[..., Any] = known[name]
        return found
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise ValueError(
            f"The {what} {name!r} is unknown; choose one of: {described or ', '.join(known)}. "
            f"Your own is written as 'module:name'."
        )
    try:
        value: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"The {what} {name!r} needs the module {module_name!r}, which cannot be imported "
            f"({error}); install it or add its folder to PYTHONPATH."
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ValueError(
                f"The {what} {name!r} was not found: {module_name!r} has no {attribute!r}."
            )
        value = getattr(value, part)
    if not callable(value):
        raise ValueError(f"The {what} {name!r} should be callable, but it is {value!r}.")
    result: Callable[..., Any] = value
    return result

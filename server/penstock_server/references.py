"""Finds what a setting names as "module:name"; called before anything is done with it.

Not penstock_surrogates.registry, which finds networks: `penstock check` and the receivers come here
as well, and load no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def find(reference: str, setting: str, error: type[Exception] = ValueError) -> Callable[..., Any]:
    """The function or class behind `module:name`; `setting` is the key that names it.

    Raises `error` with a sentence when there is none.
    """
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as why:
        raise error(
            f'{setting} = "{reference}" cannot be imported: {why}. Its module must be installed '
            "or stand in a folder of PYTHONPATH."
        ) from why
    except Exception as why:  # a module does whatever it likes when it is imported
        raise error(
            f'{setting} = "{reference}" cannot be imported: {type(why).__name__}: {why}.'
        ) from why
    if not callable(found):
        raise error(f'{setting} = "{reference}" should be a function or a class; it is {found!r}.')
    named: Callable[..., Any] = found
    return named

"""What a setting names as "module:name" is found, or a sentence names the setting."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from penstock_server.design import DesignError
from penstock_server.references import find


def test_a_function_is_found_by_its_module_and_name() -> None:
    assert find("math:sqrt", "admission.check") is math.sqrt


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("no_such_module:f", r"cannot be imported: No module named 'no_such_module'.*PYTHONPATH"),
        ("math:nothing", r"cannot be imported: .*has no attribute 'nothing'"),
        ("math:pi", r"should be a function or a class; it is 3\.14"),
    ],
)
def test_what_cannot_be_found_is_an_error_of_the_callers_kind(reference: str, why: str) -> None:
    with pytest.raises(DesignError, match=rf'^design\.sampler = "{reference}" {why}'):
        find(reference, "design.sampler", DesignError)
    with pytest.raises(ValueError, match=r"^source = "):
        find(reference, "source")


def test_a_module_that_fails_when_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="cannot be imported: RuntimeError: no licence"):
        find("failing_module:check", "admission.check")

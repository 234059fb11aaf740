"""JSON files that others read: whole or not at all, and without numbers that JSON has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_server.json_file import finite, write_json


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1, 2])
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == [1, 2]
    write_json(path, {"x": 3})
    assert json.loads(path.read_text()) == {"x": 3}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_what_is_not_finite_is_null() -> None:
    values = {"x": [float("nan"), 1.0], "3": {"y": float("inf")}, 4: (2, "nan")}
    assert finite(values) == {"x": [None, 1.0], "3": {"y": None}, "4": [2, "nan"]}

"""JSON files that appear complete or not at all; for whatever others read while it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Any) -> None:
    """Replaces the file as a whole; its folder must be there. Raises OSError."""
    part = path.with_name(f"{path.name}.part")  # a full disk must not cost the old one
    part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def finite(value: Any) -> Any:
    """The same with null for numbers that are not finite, for which JSON has no word."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

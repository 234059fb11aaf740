"""A finished run's folder as values, or one sentence that says why it cannot be read.

`report.writing` calls it. What a run need not have (opponents.json, drawn.json, ..) is None.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_server import examples_file, run_folder
from penstock_server.audit import AuditError, audit, read_tables
from penstock_server.report.files import ReportError, read_history, read_json
from penstock_server.report.points import Point, read_points

__all__ = ["ReportError", "Run", "read_run"]

History = Mapping[str, list[float | None]]


@dataclass(frozen=True)
class Run:
    """What one run left. Mappings are JSON as it stands in the file of that name."""

    folder: Path
    campaign: Mapping[str, Any]  # campaign.toml
    toml: str
    summary: Mapping[str, Any]
    history: History | None  # column -> one value a row
    validation: Mapping[str, Any] | None
    examples: examples_file.Examples | None
    opponents: Mapping[str, Any] | None
    drawn: Mapping[str, Any] | None
    model: Mapping[str, Any] | None  # model/model.json
    points: tuple[Point, ...] | None
    has_best: bool
    disk_bytes: Mapping[str, int]  # what of the folder -> bytes
    audit: str = ""  # what `penstock audit` says of it, in a line

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.campaign.get("name") or "run")

    @property
    def identity(self) -> str:
        return str(self.summary.get("run") or self.folder.name)

    @property
    def batches(self) -> int:
        return int(self.summary.get("batches") or 0)


def read_run(folder: Path) -> Run:
    """Everything that the report needs. Raises ReportError."""
    try:
        paths = run_folder.reopen(folder)
    except run_folder.RunFolderError as error:
        raise ReportError(str(error)) from error
    if paths.running:
        raise ReportError(
            f"The run {folder} is still running, and a report is made of what it leaves at its "
            "end. Wait for it, or stop it with Ctrl-C."
        )
    summary = read_json(paths.summary)
    if summary is None:
        raise ReportError(
            f"The run {folder} has no summary.json: it was killed before its end. To go on with "
            f"it: penstock run --resume {folder}"
        )
    root = paths.root
    toml = _text(paths.campaign)
    return Run(
        folder=root,
        campaign=_parse(paths.campaign, toml),
        toml=toml,
        summary=summary,
        history=read_history(paths.history),
        validation=read_json(root / "validation.json"),
        examples=_examples(root / "examples.npz"),
        opponents=read_json(root / "opponents.json"),
        drawn=read_json(root / "drawn.json"),
        model=read_json(root / "model" / "model.json", "surrogate"),
        points=read_points(root / "coordinator.sqlite"),
        has_best=(root / "best" / "model.json").is_file(),
        disk_bytes=_sizes(root),
        audit=_audit(root),
    )


def _audit(root: Path) -> str:
    """Without the data set, which may be large."""
    try:
        return audit(read_tables(root, data=False)).sentence
    except AuditError as error:
        return f"not possible. {error}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} cannot be read: {error}.") from error


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    """As it stands: a campaign file of another version has keys that this one may not know."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ReportError(f"{path} is damaged: {error}.") from error


def _examples(path: Path) -> examples_file.Examples | None:
    try:
        return examples_file.read(path)
    except FileNotFoundError:
        return None
    except examples_file.ExamplesError as error:
        raise ReportError(str(error)) from error


def _sizes(root: Path) -> dict[str, int]:
    """Bytes on the disk of what a user may want to keep or to delete; holes take none."""
    found: dict[str, int] = {}
    for name in ("model", "best", "checkpoints", "logs", "data.h5", "coordinator.sqlite"):
        path = root / name
        files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
        if files:
            found[name] = sum(f.stat().st_blocks * 512 for f in files if f.is_file())
    return found

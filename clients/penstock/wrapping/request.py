"""From the command line of `penstock wrap` to its settings; everything wrong is said here, once."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from penstock.group import NOT_FOUND, NOT_STARTED
from penstock.wrapping.formats import missing
from penstock.wrapping.outputs import Output
from penstock.wrapping.scratch import free_bytes
from penstock.wrapping.settings import WrapError, Wrapping
from penstock.wrapping.template import Template, TemplateError

MEMORY = Path("/dev/shm")
ROOM = 1 << 30  # bytes, or a quarter of what is free if that is less
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def settings(options: argparse.Namespace, words: Sequence[str]) -> Wrapping:
    """What was asked for; words: the command. Raises WrapError for what cannot be."""
    if not words:
        raise WrapError("There is no program to run. Put it behind --, after the options.")
    try:
        wrapping = _read(options, words)
    except (TemplateError, OSError) as error:
        raise WrapError(str(error)) from error
    _check(wrapping)
    return wrapping


def _read(options: argparse.Namespace, words: Sequence[str]) -> Wrapping:
    sources = [_named(text, ".template") for text in options.template]
    links = {name: path.absolute() for path, name in map(_named, options.link)}
    templates = {name: Template(_text(path), str(path)) for path, name in sources}
    memory, room = _memory(options.memory, options.room)
    return Wrapping(
        program=words[0],
        command=tuple(Template(word, f"The command's {word!r}") for word in _found(words)),
        templates=templates,
        links=links,
        outputs=tuple(map(_output, options.field)),
        stdin=options.stdin,
        done=options.done,
        at_once=options.at_once,
        times=_output(f"--times={options.times}") if options.times else None,
        t0=options.t0,
        dt=options.dt,
        steps=options.steps,
        timeout_s=options.timeout,
        memory=memory,
        room_bytes=room,
        parameters=dict(map(_parameter, options.parameter)),
    )


def _check(wrapping: Wrapping) -> None:
    """Refuses what could not work, or would not do what it seems to."""
    fields = [output.field for output in wrapping.outputs]
    if not fields:
        raise WrapError("Say which files hold which field: --field temperature='out_*.npy'.")
    if len(set(fields)) < len(fields):
        raise WrapError(f"Each --field is named once; given were {', '.join(fields)}.")
    if not any(text.names for text in wrapping.texts):
        raise WrapError(
            "No template and no part of the command has a placeholder such as ${alpha}, so every "
            "simulation would be the same. Give --template FILE, or placeholders in the command."
        )
    inside = {*wrapping.templates, *wrapping.links}
    if wrapping.stdin and wrapping.stdin not in inside:
        raise WrapError(f"--stdin {wrapping.stdin} is no --template and no --link of this run.")
    patterns = [output.pattern for output in wrapping.outputs] + [wrapping.done or "done"]
    for name in (*inside, *patterns):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise WrapError(f"{name} has to be a relative path below the program's folder.")
    for output in wrapping.outputs:
        if output.pattern in inside:
            raise WrapError(f"{output.pattern} is an input; it cannot be the field {output.field}.")
    if wrapping.steps is not None and wrapping.steps < 1:
        raise WrapError(f"--steps has to be 1 or more, not {wrapping.steps}.")
    if wrapping.done and wrapping.at_once:
        raise WrapError("--at-once says that no marker is needed; leave out it or --done.")
    if wrapping.times and (wrapping.dt is not None or wrapping.times.one_a_step):
        raise WrapError("--times is one file with the time of every step, and stands without --dt.")
    for output in (*wrapping.outputs, *([wrapping.times] if wrapping.times else [])):
        if problem := missing(output.suffix):
            raise WrapError(f"{output.pattern}: {problem}")


def _found(words: Sequence[str]) -> list[str]:
    """The command with the program's full path: it runs in another folder than this."""
    program = words[0]
    if "${" in program:
        return list(words)  # known only when it is filled
    path = shutil.which(program)
    if path is not None:
        return [str(Path(path).absolute()), *words[1:]]
    there = Path(program).is_file() and os.sep in program
    raise WrapError(
        f"{program} is not executable; chmod +x {program}, or put its interpreter before it."
        if there
        else f"The program {program} was not found. Give a path from {Path.cwd()}, or a program on "
        "PATH.",
        NOT_STARTED if there else NOT_FOUND,
    )


def _named(text: str, suffix: str = "") -> tuple[Path, str]:
    """PATH[=NAME] -> the path, which has to exist, and the name in the program's folder."""
    source, _, name = text.partition("=")
    path = Path(source)
    if not path.exists():
        raise WrapError(f"{source} does not exist; relative paths start at {Path.cwd()}.")
    own = path.name[: -len(suffix)] if suffix and path.name.endswith(suffix) else path.name
    return path, PurePosixPath(name or own).as_posix()


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _output(text: str) -> Output:
    field, equals, rest = text.partition("=")
    pattern, _, select = rest.partition(":")
    if not (field and equals and pattern):
        raise WrapError(
            f"--field expects NAME=FILES, such as temperature='out_*.npy', not {text!r}."
        )
    return Output(field, PurePosixPath(pattern).as_posix(), select)


def _parameter(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise WrapError(f"--parameter expects NAME=VALUE with a number, not {text!r}.") from error


def _memory(folder: Path | None, room: str | None) -> tuple[Path, int]:
    """Where the program's folder is made, and how much may be in it."""
    memory = folder or MEMORY
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        raise WrapError(
            f"{memory} is no folder that can be written to. Give one in memory with --memory; a "
            "folder on a disk works too, and then every field touches the disk."
        )
    free = free_bytes(memory)
    wanted = _size(room) if room else min(ROOM, free // 4)
    if not 0 < wanted <= free:
        raise WrapError(
            f"{memory} has {free / 1e6:.0f} MB free, and {wanted / 1e6:.0f} MB are asked for. "
            "Give less with --room, or enlarge it: docker run --shm-size=4g, or mount -o "
            f"remount,size=50% {memory}."
        )
    return memory, wanted


def _size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise WrapError(f"--room expects a size such as 500MB or 2GB, not {text!r}.")
    return round(float(match[1]) * _UNITS[match[2].upper()])

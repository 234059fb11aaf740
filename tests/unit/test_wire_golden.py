"""The golden frames: what this client encodes is, byte for byte, what WIRE.md says."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import wire
from penstock.layout import FieldSpec, share
from penstock.wire import FieldEntry, Header, Kind

GOLDEN = Path(__file__).parents[1] / "golden"
MESSAGES: list[dict[str, Any]] = json.loads((GOLDEN / "index.json").read_text())["messages"]


def files(name: str) -> list[bytes]:
    paths = sorted(GOLDEN.glob(f"{name}.[0-9].bin"))
    return [path.read_bytes() for path in paths]


def described(message: dict[str, Any]) -> Header:
    fields = tuple(FieldEntry(**entry) for entry in message.get("fields", []))
    return Header(Kind[message["kind"]], **message["header"], fields=fields)


def same(a: Header, b: Header) -> bool:
    """Equal, with NaN equal to NaN."""
    times = (math.isnan(a.t) and math.isnan(b.t)) or a.t == b.t
    return times and a._replace(t=0) == b._replace(t=0)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m["name"])
def test_the_header_is_encoded_as_the_golden_frame(message: dict[str, Any]) -> None:
    assert bytes(wire.encode(described(message))) == files(message["name"])[0]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m["name"])
def test_the_golden_frame_is_decoded_to_its_header(message: dict[str, Any]) -> None:
    assert same(wire.decode(files(message["name"])[0]), described(message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m["name"])
def test_the_field_table_names_the_length_of_the_golden_payloads(message: dict[str, Any]) -> None:
    first, *payloads = files(message["name"])
    entries = wire.decode(first).fields
    if message["kind"] == "BUNCH":
        payloads = [bytes(payload[: len(payload) // 2]) for payload in payloads[1:]]
    if entries:
        assert [entry.n_bytes for entry in entries] == [len(payload) for payload in payloads]


def test_a_golden_bunch_is_its_steps_one_after_the_other() -> None:
    first, *payloads = files("bunch")
    parts = list(wire.parts_of(wire.decode(first), payloads))
    assert [(one.kind, one.step, one.t) for one, _ in parts] == [
        (Kind.PART, 42, 0.42),
        (Kind.PART, 44, 0.44),
    ]
    whole = b"".join(bytes(values) for _, (values,) in parts)
    assert whole == payloads[1]
    assert {one._replace(step=0, t=0.0) for one, _ in parts} == {
        wire.decode(first)._replace(kind=Kind.PART, step=0, t=0.0)
    }


@pytest.mark.parametrize(
    ("n", "steps", "values"), [(0, 0, 0), (2, 1, 2), (1, 2, 2), (2, 2, 1), (3, 2, 3)]
)
def test_a_bunch_that_is_not_whole_is_an_error(n: int, steps: int, values: int) -> None:
    header = Header(Kind.BUNCH, step=n, fields=(FieldEntry(0, 1, 48),))
    with pytest.raises(wire.WireError, match="bunch"):
        list(wire.parts_of(header, [bytes(16 * steps), bytes(48 * values)]))


def test_a_layout_gives_the_golden_plan() -> None:
    u = FieldSpec("u", 0, (4, 6), np.dtype("float32"))
    v = FieldSpec("v", 1, (5,), np.dtype("float64"))
    rows = share(u, (slice(2, 4), slice(None)))
    some = share(v, np.array([4, 0]))
    assert [rows.plan.tobytes(), some.plan.tobytes()] == files("plan")[1:]


def test_grants_are_encoded_and_decoded_as_the_golden_frame() -> None:
    frame = files("ack")[1]
    assert wire.encode_grants([(7, 9), (9, 1)]) == frame
    assert wire.decode_grants(frame) == [(7, 9), (9, 1)]


def test_every_kind_has_a_golden_message() -> None:
    assert {message["kind"] for message in MESSAGES} == {kind.name for kind in Kind}


def test_the_files_are_what_the_index_describes() -> None:
    """write.py knows the protocol from its description alone, not from the client."""
    spec = importlib.util.spec_from_file_location("golden_write", GOLDEN / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for message in MESSAGES:
        assert module.frames(message) == files(message["name"]), message["name"]
    assert len(list(GOLDEN.glob("*.bin"))) == sum(len(files(m["name"])) for m in MESSAGES)

"""The wire's frames: what goes in comes out, and what is not one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import wire
from penstock.wire import FieldEntry, Header, Kind, WireError


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


ENTRIES = st.builds(FieldEntry, unsigned(16), unsigned(8), unsigned(64), unsigned(8))
HEADERS = st.builds(
    Header,
    st.sampled_from(Kind),
    campaign=unsigned(64),
    simulation=unsigned(64),
    lease=unsigned(32),
    step=unsigned(32),
    part=unsigned(16),
    n_parts=unsigned(16),
    plan=unsigned(32),
    geometry=unsigned(32),
    flags=unsigned(32),
    sequence=unsigned(64),
    t=st.floats(allow_nan=False),
    fields=st.lists(ENTRIES, max_size=6).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(HEADERS)
def test_decode_is_the_inverse_of_encode(header: Header) -> None:
    assert wire.decode(wire.encode(header)) == header


@settings(max_examples=100, deadline=None)
@given(HEADERS, st.data())
def test_a_truncated_or_lengthened_header_is_refused(header: Header, data: st.DataObject) -> None:
    frame = bytes(wire.encode(header))
    wrong = data.draw(st.integers(0, len(frame) + 40).filter(lambda n: n != len(frame)))
    with pytest.raises(WireError):
        wire.decode((frame + bytes(40))[:wrong])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_something_else_are_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(frame)


@settings(max_examples=300, deadline=None)
@given(HEADERS, st.integers(0, 63), st.integers(1, 255))
def test_a_damaged_header_is_refused_or_is_another_header(
    header: Header, at: int, change: int
) -> None:
    frame = bytearray(wire.encode(header))
    frame[at] ^= change
    try:
        found = wire.decode(frame)
    except WireError:
        return
    assert bytes(wire.encode(found)) == bytes(frame) or found.t != found.t


def test_another_version_is_refused_with_both_numbers() -> None:
    frame = bytearray(wire.encode(Header(Kind.HELLO)))
    frame[4] = 9
    with pytest.raises(WireError, match="version 9 came; this side speaks 1"):
        wire.decode(frame)


def test_something_else_on_the_port_is_named_as_such() -> None:
    with pytest.raises(WireError, match="something else talks to this port"):
        wire.decode(b"GET / HTTP/1.1\r\nHost: penstock\r\n".ljust(64))


def test_a_kind_that_does_not_exist_is_refused() -> None:
    frame = bytearray(wire.encode(Header(Kind.HELLO)))
    frame[5] = 15
    with pytest.raises(WireError, match="unknown kind 15"):
        wire.decode(frame)


def test_255_fields_fit_into_a_message_and_256_do_not() -> None:
    entry = FieldEntry(0, 1, 8)
    most = Header(Kind.PART, t=0.0, fields=(entry,) * 255)
    assert wire.decode(wire.encode(most)) == most
    with pytest.raises(WireError, match="255 are allowed"):
        wire.encode(Header(Kind.PART, fields=(entry,) * 256))


def test_a_lent_table_differs_in_its_flags_alone_and_is_made_once() -> None:
    fields = (FieldEntry(0, 1, 8), FieldEntry(3, 2, 16))
    lent = wire.lent(fields)
    assert [entry.flags for entry in lent] == [wire.LENT] * 2
    assert tuple(entry._replace(flags=0) for entry in lent) == fields
    assert wire.lent(fields) is lent
    header = Header(Kind.PART, fields=lent, t=1.0)
    assert wire.decode(wire.encode(header)) == header


@pytest.mark.parametrize("name", ["float32", "float64", "int32", "int64", "uint8"])
def test_a_dtype_keeps_its_code_whatever_its_byte_order(name: str) -> None:
    dtype = np.dtype(name)
    code = wire.dtype_code(dtype)
    assert wire.code_dtype(code) == dtype
    assert wire.dtype_code(dtype.newbyteorder(">")) == code


@pytest.mark.parametrize("name", ["float16", "complex128", "bool", "uint16", "U3"])
def test_a_dtype_that_the_wire_does_not_carry_is_refused_by_name(name: str) -> None:
    with pytest.raises(WireError, match="The wire carries float32, float64, int32, int64, uint8"):
        wire.dtype_code(np.dtype(name))


@pytest.mark.parametrize("code", [0, 6, 255])
def test_a_dtype_code_that_does_not_exist_is_refused(code: int) -> None:
    with pytest.raises(WireError, match="codes go from 1 to 5"):
        wire.code_dtype(code)


def test_truncated_grants_are_refused() -> None:
    with pytest.raises(WireError, match="multiple of 8"):
        wire.decode_grants(bytes(12))

"""Writes the golden frames again, from index.json and WIRE.md alone: struct, no penstock.

Run by hand after a change of the protocol's version; the tests compare the client's own encoding
with the files, byte for byte.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {
    "HELLO": 1, "PLAN": 2, "OPEN": 3, "INPUT": 4, "PART": 5, "END": 6, "FAIL": 7, "PROBE": 8,
    "BYE": 9, "BUNCH": 10, "ACK": 16, "RESYNC": 17, "REFUSED": 18,
}  # fmt: skip
LETTERS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "uint8": "B"}


def frames(message: dict[str, Any]) -> list[bytes]:
    """The frames of one entry of the index."""
    header = message["header"]
    fields = message.get("fields", [])
    first = b"PNST" + struct.pack("<BBH", 1, KINDS[message["kind"]], len(fields))
    first += struct.pack("<QQ", header.get("campaign", 0), header.get("simulation", 0))
    first += struct.pack("<II", header.get("lease", 0), header.get("step", 0))
    first += struct.pack("<HHI", header.get("part", 0), header.get("n_parts", 1),
                         header.get("plan", 0))  # fmt: skip
    first += struct.pack("<II", header.get("geometry", 0), header.get("flags", 0))
    t = header.get("t")
    first += struct.pack("<Qd", header.get("sequence", 0), math.nan if t is None else t)
    assert len(first) == 64
    for entry in fields:
        first += struct.pack("<HBBIQ", entry["field"], entry["dtype"], 0, 0, entry["n_bytes"])
    return [first, *(payload(p) for p in message.get("payloads", []))]


def payload(described: dict[str, Any]) -> bytes:
    if "text" in described:
        return str(described["text"]).encode()
    if "grants" in described:
        return b"".join(struct.pack("<II", *pair) for pair in described["grants"])
    if "steps" in described:
        return b"".join(struct.pack("<IId", step, 0, t) for step, t in described["steps"])
    values = described["values"]
    return struct.pack(f"<{len(values)}{LETTERS[described['dtype']]}", *values)


def main() -> None:
    """Writes NAME.0.bin, NAME.1.bin, ... for every message."""
    for message in json.loads((HERE / "index.json").read_text())["messages"]:
        for i, frame in enumerate(frames(message)):
            (HERE / f"{message['name']}.{i}.bin").write_bytes(frame)


if __name__ == "__main__":
    main()

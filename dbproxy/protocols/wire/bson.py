"""As much of BSON as an error document needs (bsonspec.org, version 1.1)."""

import struct
from collections.abc import Mapping
from typing import TypeAlias

__all__ = ["Value", "document"]

Value: TypeAlias = str | int | float


def document(fields: Mapping[str, Value]) -> bytes:
    """A document of strings, 32-bit integers and doubles, in the order given.

    Raises:
        ValueError: A name has a NUL in it, or an integer needs more than 32 bits.
    """
    body = b"".join(_element(name, value) for name, value in fields.items()) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


def _element(name: str, value: Value) -> bytes:
    key = name.encode()
    if b"\0" in key:
        raise ValueError(f"a BSON name has no NUL in it: {name!r}")
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return b"\x02" + key + b"\0" + struct.pack("<i", len(text)) + text
    if isinstance(value, int):
        if not -(2**31) <= value < 2**31:
            raise ValueError(f"not a 32-bit integer: {value}")
        return b"\x10" + key + b"\0" + struct.pack("<i", value)
    return b"\x01" + key + b"\0" + struct.pack("<d", value)

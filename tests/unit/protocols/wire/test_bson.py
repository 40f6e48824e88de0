"""The small BSON encoder, read by PyMongo's."""

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.protocols.wire.bson import Value, document

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
texts = st.text(st.characters(codec="utf-8"))
values = texts | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False)


@given(st.dictionaries(names, values))
def test_what_is_written_is_read(fields: dict[str, Value]) -> None:
    assert bson.decode(document(fields)) == fields


@pytest.mark.parametrize("fields", [{"a\0b": 1}, {"a": 2**31}, {"a": -(2**31) - 1}])
def test_what_has_no_place_is_refused(fields: dict[str, Value]) -> None:
    with pytest.raises(ValueError, match=r"NUL|32-bit"):
        document(fields)

"""What is kept of a client's first words."""

from hypothesis import given
from hypothesis import strategies as st

from dbproxy.relay import FirstFlight
from dbproxy.relay.first_flight import LIMIT


@given(st.binary(max_size=50), st.lists(st.binary(max_size=50), max_size=10))
def test_everything_is_kept_in_order(first: bytes, more: list[bytes]) -> None:
    flight = FirstFlight(first)
    for data in more:
        flight.note(data)
    assert flight.replayable
    assert flight.data == first + b"".join(more)


def test_nothing_is_kept_once_the_upstream_has_answered() -> None:
    flight = FirstFlight(b"startup")
    flight.close()
    flight.note(b"query")
    assert not flight.replayable
    assert flight.data == b""


def test_the_limit_is_kept_and_a_byte_more_is_not() -> None:
    flight = FirstFlight(b"x" * (LIMIT - 1))
    flight.note(b"y")
    assert flight.replayable
    assert len(flight.data) == LIMIT
    flight.note(b"z")
    assert flight.data == b"", "memory stays bounded"


def test_a_long_first_message_is_said_once() -> None:
    flight = FirstFlight(b"x" * (LIMIT + 1))
    assert not flight.replayable
    assert len(flight.data) == LIMIT + 1

"""Redis: each command gets the error, as redis-py reads it."""

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code, UpstreamError
from dbproxy.protocols.wire.redis import RedisWire

WIRE = RedisWire()
DOWN = UpstreamError(
    Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443:\r\n refused"
)
WRONG = ClientError(Code.CLIENT_CERTIFICATE_MISSING, "no certificate")
PING = b"*1\r\n$4\r\nPING\r\n"


def lines(answer: bytes) -> list[bytes]:
    assert answer.endswith(b"\r\n")
    return answer[:-2].split(b"\r\n")


def test_an_error_is_one_line_with_cause_code_and_next_step() -> None:
    (line,) = lines(WIRE.refusal(PING, DOWN))
    assert line.startswith(b"-ERR dbproxy: no connection to teleport.example.com:443: refused [")
    assert b"[upstream-unreachable]" in line
    assert DOWN.problem.client_hint.encode() in line


def test_a_client_that_is_not_let_in_is_told_so_without_being_asked_for_a_password() -> None:
    assert WIRE.refusal(PING, WRONG).startswith(b"-NOPERM dbproxy: no certificate [")


@pytest.mark.parametrize(
    ("sent", "commands"),
    [
        (PING, 1),
        (PING * 3, 3),
        (beginnings.REDIS_SETINFO * 2 + PING, 3),
        (b"*2\r\n$3\r\nGET\r\n$9\r\n*1\r\n$1\r\nx\r\n" + PING, 2),  # a value that looks like one
        (PING + b"*1\r\n$4\r\nPI", 2),
        (b"PING\r\n", 1),
        (b"the rest\r\n of a long\r\n value", 1),
        (b"*0\r\n", 1),
        (b"*999999999\r\n$1\r\nx\r\n", 1),
        (b"*1\r\n$999999999\r\nx", 1),
        (b"*", 1),
    ],
)
def test_each_command_is_answered(sent: bytes, commands: int) -> None:
    assert len(lines(WIRE.refusal(sent, DOWN))) == commands
    answering = WIRE.further(PING, DOWN)
    assert len(lines(answering(sent))) == commands
    assert answering(b"") == b""


def test_one_piece_of_hostile_bytes_has_a_limit() -> None:
    assert len(lines(WIRE.refusal(b"*0\r\n" * 100_000, DOWN))) == 1000


@given(st.binary(max_size=200))
def test_whatever_is_sent_the_answer_is_whole_lines(data: bytes) -> None:
    assert all(line.startswith(b"-ERR ") for line in lines(WIRE.refusal(data, DOWN)))


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), min_size=1, max_size=5))
def test_commands_are_counted_as_clients_encode_them(commands: list[list[bytes]]) -> None:
    sent = b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        for words in commands
    )
    assert len(lines(WIRE.refusal(sent, DOWN))) == len(commands)

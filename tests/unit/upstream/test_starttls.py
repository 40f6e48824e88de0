"""Asking for TLS inside of the database protocol: answers in pieces, wrong ones, none."""

import pytest
import trio
from stream_ends import FakeStream
from trio.testing import MockClock

from dbproxy.errors import Code, UpstreamError
from dbproxy.protocols import UpstreamGreeting
from dbproxy.relay import LayeredStream
from dbproxy.upstream import ProxyAddress, ask_for_tls, greet

ADDRESS = ProxyAddress("teleport.example.com", 443)
GREETING = UpstreamGreeting(b"begin", b"gladly")
LIMIT = 10.0


async def failed(*script: bytes | Exception) -> UpstreamError:
    """How asking fails when the server says this."""
    stream = LayeredStream(FakeStream(*script))
    with pytest.raises(UpstreamError) as caught:
        await ask_for_tls(stream, ADDRESS, GREETING, limit=LIMIT)
    return caught.value


@pytest.mark.parametrize("pieces", [(b"gladly",), (b"gl", b"adly"), (b"g", b"l", b"adl", b"y")])
async def test_an_answer_that_comes_in_pieces_is_read_to_its_end(pieces: tuple[bytes, ...]) -> None:
    transport = FakeStream(*pieces)
    await ask_for_tls(LayeredStream(transport), ADDRESS, GREETING, limit=LIMIT)
    assert transport.sent == b"begin"


async def test_what_comes_behind_the_answer_is_left_to_the_next_reader() -> None:
    stream = LayeredStream(FakeStream(b"gla", b"dly and more"))
    assert await greet(stream, ADDRESS, GREETING, limit=LIMIT) == b"gladly"
    assert await stream.receive_some() == b" and more"


async def test_another_answer_means_no() -> None:
    error = await failed(b"nev", b"er!")
    assert error.code is Code.UPSTREAM_TLS_FAILED
    assert "teleport.example.com:443 answered b'never!' when asked for TLS" in error.message


@pytest.mark.parametrize("script", [(b"",), (b"glad", b"")])
async def test_a_server_that_ends_before_its_answer_is_whole_has_closed_early(
    script: tuple[bytes, ...],
) -> None:
    assert (await failed(*script)).code is Code.UPSTREAM_CLOSED_EARLY


async def test_a_reset_in_the_middle_of_the_answer_is_told_as_one() -> None:
    error = await failed(b"glad", trio.BrokenResourceError())
    assert error.code is Code.UPSTREAM_CLOSED_EARLY
    assert "reset" in error.message


async def test_an_answer_that_stays_incomplete_is_given_up(autojump_clock: MockClock) -> None:
    error = await failed(b"glad")
    assert error.code is Code.UPSTREAM_UNREACHABLE
    assert "the request for TLS to" in error.message
    assert trio.current_time() == pytest.approx(LIMIT)


async def test_asking_can_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            stream = LayeredStream(FakeStream(b"glad"))
            nursery.start_soon(lambda: ask_for_tls(stream, ADDRESS, GREETING, limit=LIMIT))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught

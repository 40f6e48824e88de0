"""A conversation with the upstream that the client does not hear: SQL Server's PRELOGIN."""

from functools import partial

import pytest
import trio
from connection_bench import REJECTED, RESET, MakeBench
from stream_ends import FakeStream, Pause, receive_all
from tds_messages import NOT_SUPPORTED, OFF, REQUIRED, TABULAR, login, prelogin, prelogin_answer
from trio.testing import MockClock

from dbproxy.errors import Code
from dbproxy.events import ClosedBy
from dbproxy.protocols import SQLServer

HELLO = prelogin(OFF) + login()
ANSWER = prelogin_answer(NOT_SUPPORTED)
GRACE = 0.5
"""Seconds of the real clock: the identity is read in threads, which a virtual clock overtakes."""


@pytest.fixture
def tds_bench(make_bench: MakeBench) -> MakeBench:
    return partial(make_bench, protocol=SQLServer())


async def read_answer(stream: trio.SocketStream) -> None:
    """The answer to PRELOGIN, which comes from dbproxy."""
    header = await stream.receive_some(8)
    assert header[0] == TABULAR
    left = int.from_bytes(header[2:4], "big") - len(header)
    while left:
        left -= len(await stream.receive_some(left))


async def test_the_login_follows_a_prelogin_of_our_own(tds_bench: MakeBench) -> None:
    upstream = FakeStream(ANSWER[:5], ANSWER[5:], Pause.UNTIL_IDLE, b"welcome", b"")
    bench = tds_bench(upstream)
    async with bench.connection() as far:
        await far.send_all(HELLO)
        await read_answer(far)
        assert await receive_all(far) == b"welcome"
    assert upstream.sent[0] == 0x12
    assert upstream.sent.endswith(login())
    record = bench.record
    assert (record.outcome, record.closed_by) == ("relayed", ClosedBy.UPSTREAM)
    assert record.bytes_up == len(upstream.sent)
    assert record.bytes_down == len(b"welcome")


async def test_nothing_is_dialled_before_the_login(tds_bench: MakeBench) -> None:
    bench = tds_bench()
    async with bench.connection() as far:
        await far.send_all(prelogin(OFF))
        await read_answer(far)
    assert bench.record.outcome == "abandoned"
    assert bench.dialer.dials == []


@pytest.mark.parametrize(
    "first",
    [FakeStream(RESET), FakeStream(ANSWER[:4], RESET), FakeStream(ANSWER, Pause.UNTIL_IDLE, RESET)],
    ids=["at once", "in the answer", "after it"],
)
async def test_until_the_login_is_answered_another_upstream_will_do(
    first: FakeStream, tds_bench: MakeBench
) -> None:
    second = FakeStream(ANSWER, Pause.UNTIL_IDLE, b"welcome", b"")
    bench = tds_bench(first, second, connect_grace=GRACE)
    async with bench.connection() as far:
        await far.send_all(HELLO)
        await read_answer(far)
        assert await receive_all(far) == b"welcome"
    assert second.sent.count(login()) == 1
    assert bench.record.bytes_up == len(second.sent)
    assert bench.record.attempts == 2
    assert first.closed


@pytest.mark.parametrize(
    ("upstream", "code"),
    [
        (FakeStream(REJECTED), Code.CERTIFICATE_REJECTED),
        (FakeStream(b""), Code.UPSTREAM_CLOSED_EARLY),
        (FakeStream(REJECTED, send_error=RESET), Code.CERTIFICATE_REJECTED),
        (FakeStream(prelogin_answer(REQUIRED)), Code.UPSTREAM_PROTOCOL_ERROR),
        (FakeStream(b"HTTP/1.1 400"), Code.UPSTREAM_PROTOCOL_ERROR),
    ],
    ids=["rejected", "closed", "rejected while sending", "wants TLS", "HTTP"],
)
async def test_the_client_is_told_why(
    upstream: FakeStream, code: Code, tds_bench: MakeBench
) -> None:
    bench = tds_bench(upstream)
    async with bench.connection() as far:
        await far.send_all(HELLO)
        await read_answer(far)
        refusal = await receive_all(far)
    assert refusal[8] == 0xAA
    assert f"[{code}]".encode("utf-16-le") in refusal
    assert bench.record.code is code
    assert upstream.closed


async def test_a_silent_upstream_is_given_up(
    tds_bench: MakeBench, autojump_clock: MockClock
) -> None:
    upstream = FakeStream()
    bench = tds_bench(upstream)
    async with bench.connection() as far:
        await far.send_all(HELLO)
        await read_answer(far)
        assert "took longer than 3 s".encode("utf-16-le") in await receive_all(far)
    assert upstream.closed


async def test_cancelled_it_leaves_nothing_open(tds_bench: MakeBench) -> None:
    upstream = FakeStream()
    bench = tds_bench(upstream)
    near, far = trio.socket.socketpair()
    async with trio.SocketStream(far) as client, trio.open_nursery() as nursery:
        nursery.start_soon(bench.handler.handle, trio.SocketStream(near))
        await client.send_all(HELLO)
        await read_answer(client)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert upstream.closed
    assert bench.record.outcome == "stopped"

"""Clients for whom an upstream connection was ready before they came."""

from typing import Any

import pytest
import trio
from connection_bench import (
    ADDRESS,
    CANCEL_REQUEST,
    CLIENT_HELLO,
    DOWN,
    REJECTED,
    RESET,
    SSL_REQUEST,
    STARTUP,
    UNTRUSTED,
    Bench,
    MakeBench,
    fields,
)
from stream_ends import Duplex, FakeStream, Pause, receive_all

from dbproxy.errors import Code
from dbproxy.events import UpstreamConnected, UpstreamRetried
from dbproxy.identity import Identity, IdentityStore
from dbproxy.relay import LayeredStream
from dbproxy.settings import Mode
from dbproxy.upstream import ReadyConnections, UpstreamConnection

FAILURES = [RESET, b"", REJECTED]
FAILURE_NAMES = ["reset", "close", "rejection"]


class ScriptedReady(ReadyConnections):
    """Has the upstreams named ready."""

    def __init__(self, store: IdentityStore, *upstreams: Duplex) -> None:
        async def dial(identity: Identity) -> UpstreamConnection:
            raise AssertionError("nobody runs it")

        super().__init__(dial, store, size=0, authenticate=True, publish=lambda _event: None)
        self._upstreams = list(upstreams)
        self.asked: list[bool] = []

    def take(self, *, authenticate: bool) -> UpstreamConnection | None:
        self.asked.append(authenticate)
        if not self._upstreams:
            return None
        return UpstreamConnection(
            stream=LayeredStream(self._upstreams.pop(0)),
            address=ADDRESS,
            alpn="teleport-postgres-ping",
            tls_version="TLSv1.3",
            duration=0.5,
            prewarmed=True,
        )


def welcoming() -> FakeStream:
    """An upstream that answers."""
    return FakeStream(Pause.UNTIL_IDLE, b"welcome", b"")


def dead(error: Exception | bytes) -> FakeStream:
    """An upstream that takes what the client says and fails without a byte."""
    return FakeStream(Pause.UNTIL_IDLE, error)


def make_ready(bench: Bench, *upstreams: Duplex) -> ScriptedReady:
    ready = ScriptedReady(bench.handler.store, *upstreams)
    bench.handler.bridge.ready = ready
    return ready


async def test_the_client_gets_the_one_that_is_ready_and_its_record_says_so(
    make_bench: MakeBench,
) -> None:
    upstream = welcoming()
    bench = make_bench()
    make_ready(bench, upstream)
    assert await bench.converse(STARTUP) == b"welcome"
    assert upstream.sent == STARTUP
    assert upstream.closed
    assert bench.record.prewarmed
    assert bench.record.attempts == 1
    assert bench.record.generation == 1
    assert not bench.dialer.dials
    (connected,) = (event for event in bench.events if isinstance(event, UpstreamConnected))
    assert connected.prewarmed


async def test_when_none_is_ready_one_is_dialled(make_bench: MakeBench) -> None:
    bench = make_bench(welcoming())
    ready = make_ready(bench)
    assert await bench.converse(STARTUP) == b"welcome"
    assert ready.asked == [True]
    assert not bench.record.prewarmed


@pytest.mark.parametrize("error", FAILURES, ids=FAILURE_NAMES)
async def test_for_one_that_is_dead_another_is_dialled_at_once_and_hears_everything(
    error: Any, make_bench: MakeBench
) -> None:
    """Also without any grace: it says nothing about the upstream as it is now."""
    first, second = dead(error), welcoming()
    bench = make_bench(second, connect_grace=0)
    make_ready(bench, first, welcoming())
    async with bench.connection() as far:
        await far.send_all(STARTUP)
        await trio.testing.wait_all_tasks_blocked()
        await far.send_all(b" and more")
        assert await receive_all(far) == b"welcome"
    assert first.closed
    assert second.sent == STARTUP + b" and more"
    assert bench.record.bytes_up == len(second.sent)
    assert bench.record.attempts == 2
    assert not bench.record.prewarmed
    assert bench.dialer.dials == [True], "the second one that is ready may be as dead"
    (retried,) = (event for event in bench.events if isinstance(event, UpstreamRetried))
    assert (retried.attempt, retried.pause) == (1, 0)


async def test_one_that_does_not_even_take_what_the_client_says_is_no_loss(
    make_bench: MakeBench,
) -> None:
    second = welcoming()
    bench = make_bench(second)
    make_ready(bench, FakeStream(Pause.UNTIL_IDLE, RESET, send_error=RESET))
    assert await bench.converse(STARTUP) == b"welcome"
    assert second.sent == STARTUP


async def test_what_the_dial_says_then_is_told(make_bench: MakeBench) -> None:
    bench = make_bench(UNTRUSTED)
    make_ready(bench, dead(b""))
    assert fields(await bench.converse(STARTUP))["M"].endswith("[upstream-untrusted]")
    assert bench.record.attempts == 2
    assert not bench.record.prewarmed


async def test_it_uses_up_no_chance_of_another_attempt(make_bench: MakeBench) -> None:
    bench = make_bench(dead(b""), welcoming(), connect_grace=5)
    make_ready(bench, dead(b""))
    assert await bench.converse(STARTUP) == b"welcome"
    assert bench.record.attempts == 3


async def test_an_answered_client_is_never_replayed(make_bench: MakeBench) -> None:
    bench = make_bench(welcoming(), connect_grace=5)
    make_ready(bench, FakeStream(b"half", Pause.UNTIL_IDLE, RESET))
    assert await bench.converse(STARTUP) == b"half"
    assert not bench.dialer.dials
    assert bench.record.code is Code.UPSTREAM_LOST
    assert bench.record.prewarmed


async def test_only_the_first_attempt_is_one_that_was_ready(make_bench: MakeBench) -> None:
    bench = make_bench(DOWN, welcoming(), connect_grace=5)
    ready = make_ready(bench)
    assert await bench.converse(STARTUP) == b"welcome"
    assert ready.asked == [True]


async def test_a_cancel_request_goes_its_own_way(make_bench: MakeBench) -> None:
    upstream = dead(b"")
    bench = make_bench(upstream)
    ready = make_ready(bench, welcoming())
    assert await bench.converse(CANCEL_REQUEST) == b""
    assert upstream.sent == CANCEL_REQUEST
    assert not ready.asked


async def test_in_passthrough_it_is_one_without_our_certificate(make_bench: MakeBench) -> None:
    bench = make_bench(mode=Mode.PASSTHROUGH)
    ready = make_ready(bench, FakeStream(Pause.UNTIL_IDLE, b"S", b""))
    assert await bench.converse(SSL_REQUEST) == b"S"
    assert ready.asked == [False]


async def test_for_direct_tls_a_dead_one_is_replaced_before_the_client_was_heard(
    make_bench: MakeBench,
) -> None:
    second = FakeStream(b"S", b"server hello", b"")
    bench = make_bench(second, mode=Mode.PASSTHROUGH)
    make_ready(bench, FakeStream(b""))
    assert await bench.converse(CLIENT_HELLO) == b"server hello"
    assert second.sent == SSL_REQUEST + CLIENT_HELLO


async def test_a_client_that_is_cancelled_leaves_none_open(make_bench: MakeBench) -> None:
    upstream = FakeStream()
    bench = make_bench()
    make_ready(bench, upstream)
    with trio.move_on_after(0.2):
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await trio.sleep_forever()
    assert upstream.closed
    assert bench.record.outcome == "stopped"

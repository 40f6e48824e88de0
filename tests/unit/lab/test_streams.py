from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from tls_machine import Machine

from dbproxy.lab.authority import Authority
from dbproxy.lab.framing import PING, encode_frame
from dbproxy.lab.streams import LingeringStream, PingStream
from dbproxy.lab.tls import TLSServerStream
from dbproxy.lab.tls_stream import HandshakeError

TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture(scope="module")
def server_context(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> ssl.SSLContext:
    pair = authority.issue_web_certificate()
    file: Path = tmp_path_factory.mktemp("tls") / "web.pem"
    file.write_bytes(pair.key_pem + pair.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.fixture
def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.web_ca.pem.decode())


async def shake_hands(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> tuple[TLSServerStream, Machine]:
    """Both ends of a TLS connection in memory."""
    below, above = trio.testing.memory_stream_pair()
    server, client = TLSServerStream(below, server_context), Machine(above, client_context)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.handshake)
    return server, client


@pytest.mark.parametrize("version", TLS_VERSIONS)
async def test_the_server_goes_on_reading_after_its_own_end(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client_context.maximum_version = version
    server, client = await shake_hands(server_context, client_context)
    await client.send(b"before")
    await server.send_eof()
    assert await client.receive() == b""
    await client.send(b" and after")
    await client.close_notify()
    assert await read_all(server) == b"before and after"
    await server.aclose()


@pytest.mark.parametrize("version", TLS_VERSIONS)
async def test_the_server_goes_on_sending_after_the_clients_end(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client_context.maximum_version = version
    server, client = await shake_hands(server_context, client_context)
    await client.send(b"question")
    await client.close_notify()
    assert await read_all(server) == b"question"
    await server.send_all(b"answer")
    await server.aclose()
    assert await client.receive() == b"answer"
    assert await client.receive() == b""


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while piece := await stream.receive_some(7):
        data += piece
    return data


async def test_much_unread_data_does_not_disturb_the_end(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server, client = await shake_hands(server_context, client_context)
    await client.send(bytes(100_000))
    assert await server.receive_some(1) == b"\0"
    await server.send_eof()
    await client.close_notify()
    assert len(await read_all(server)) == 99_999


async def test_sending_after_the_end_is_refused(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server, _ = await shake_hands(server_context, client_context)
    await server.send_eof()
    await server.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"x")


async def test_a_connection_cut_without_close_notify_is_an_end(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server, client = await shake_hands(server_context, client_context)
    await client.send(b"last words")
    await client.transport.aclose()
    assert await read_all(server) == b"last words"


async def test_data_before_a_damaged_record_is_handed_out_first(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server, client = await shake_hands(server_context, client_context)
    client.tls.write(b"good")
    await client.transport.send_all(client.outgoing.read() + b"\x17\3\3\0\x20" + bytes(32))
    assert await server.receive_some() == b"good"
    with pytest.raises(trio.BrokenResourceError, match="mac"):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="mac"):
        await server.receive_some()


async def test_a_handshake_that_is_no_tls_fails_in_words(server_context: ssl.SSLContext) -> None:
    below, above = trio.testing.memory_stream_pair()
    await above.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(HandshakeError, match="http request"):
        await TLSServerStream(below, server_context).do_handshake()


async def test_a_peer_that_leaves_during_the_handshake_is_named(
    server_context: ssl.SSLContext,
) -> None:
    below, above = trio.testing.memory_stream_pair()
    await above.send_all(b"\x16\3\1")
    await above.aclose()
    with pytest.raises(HandshakeError, match="the peer ended the connection"):
        await TLSServerStream(below, server_context).do_handshake()


async def test_bytes_read_before_are_part_of_the_handshake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    below, above = trio.testing.memory_stream_pair()
    client = Machine(above, client_context)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    server = TLSServerStream(below, server_context, prefix=client.outgoing.read())
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.handshake)
    assert server.version == "TLSv1.3"


async def test_closing_a_cancelled_stream_closes_its_transport(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server, client = await shake_hands(server_context, client_context)
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.transport.send_all(b"x")


async def test_closing_does_not_wait_for_a_peer_that_does_not_read(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    autojump_clock: trio.testing.MockClock,
) -> None:
    below, above = trio.testing.lockstep_stream_pair()
    server, client = TLSServerStream(below, server_context), Machine(above, client_context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(handshake_with_tickets, client)
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.transport.send_all(b"x")


async def handshake_with_tickets(client: Machine) -> None:
    """The server's handshake ends with session tickets, which the client has to read."""
    await client.handshake()
    with trio.move_on_after(1):
        await client.receive()


async def test_one_write_is_one_frame_in_one_write_below() -> None:
    below, above = trio.testing.memory_stream_pair()
    await PingStream(below).send_all(b"hello")
    assert await above.receive_some() == encode_frame(b"hello")


async def test_an_empty_write_sends_nothing() -> None:
    below, above = trio.testing.memory_stream_pair()
    stream = PingStream(below)
    await stream.send_all(b"")
    await stream.send_eof()
    assert await above.receive_some() == b""


async def test_received_pings_are_dropped_and_counted() -> None:
    below, above = trio.testing.memory_stream_pair()
    stream = PingStream(below)
    await above.send_all(PING + encode_frame(b"one") + PING + encode_frame(b"two"))
    assert await stream.receive_some(4) == b"onet"
    assert await stream.receive_some(4) == b"wo"
    assert stream.received_pings == 2


async def test_pings_are_sent_at_the_interval_until_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below, above = trio.testing.memory_stream_pair()
    stream = PingStream(below)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_pings, 30)
        await trio.sleep(91)
        await stream.send_eof()
    assert await read_all(above) == PING * 3


async def test_pings_end_when_the_connection_breaks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below, above = trio.testing.memory_stream_pair()
    await above.aclose()
    with trio.fail_after(31):
        await PingStream(below).send_pings(30)


async def test_pings_and_data_of_concurrent_senders_do_not_interleave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below, above = trio.testing.lockstep_stream_pair()
    stream = PingStream(below)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"a" * 1000)
        nursery.start_soon(stream.send_all, b"b" * 1000)
        nursery.start_soon(stream.send_pings, 0.001)
        received = b""
        while len(received) < 2 * 1004:
            received += await above.receive_some(100)
            await trio.sleep(0.01)
        await stream.aclose()
    without_pings = received.replace(PING, b"")
    assert without_pings.count(b"a" * 1000) == without_pings.count(b"b" * 1000) == 1


async def test_lingering_lets_the_last_bytes_reach_a_peer_that_is_still_sending() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        client = await trio.open_tcp_stream("127.0.0.1", port)
        server = LingeringStream(await listeners[0].accept(), linger=5)
        await client.send_all(bytes(MEBIBYTE // 16))
        await server.send_all(b"the reason")
        nursery.start_soon(server.aclose)
        await client.send_all(bytes(1000))
        assert await client.receive_some() == b"the reason"
        assert await client.receive_some() == b""
        await client.aclose()
        await listeners[0].aclose()


async def test_lingering_ends_after_its_time() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    server = LingeringStream(await listeners[0].accept(), linger=0.01)
    with trio.fail_after(5):
        await server.aclose()
    await client.aclose()
    await listeners[0].aclose()

"""Dialling with TLS routing off: TLS begins inside of the database protocol, or is the client's."""

import socket

import pytest
import trio
from cancelling import cancel_after
from dialers import Dial, make_dialer
from identities import Authority, make_authority
from lab_client import SSL_REQUEST, exactly
from loopback import Handler, TLSStream, open_server, tls_handler, wait_for_end
from tls_peers import Credentials, make_credentials, server_context

from dbproxy.errors import Code, Prospect, UpstreamError
from dbproxy.identity import Identity
from dbproxy.protocols.postgres import Postgres
from dbproxy.relay import LayeredStream
from dbproxy.upstream import ProxyAddress, UpstreamConnection, UpstreamTrust

PATIENCE = 10.0


@pytest.fixture
def dial(web_authority: Authority, identity: Identity) -> Dial:
    """Dials a port of 127.0.0.1 that speaks the database protocol itself."""

    async def dial_port(
        port: int,
        *,
        authenticate: bool = True,
        protocol: Postgres = Postgres(),  # noqa: B008 - it has no state
        handshake_timeout: float = PATIENCE,
    ) -> UpstreamConnection:
        dialer = make_dialer(
            ProxyAddress("127.0.0.1", port),
            UpstreamTrust([web_authority.certificate]),
            tls_routing=False,
            handshake_timeout=handshake_timeout,
        )
        return await dialer.dial(protocol, identity, authenticate=authenticate)

    return dial_port


def accepting(credentials: Credentials, *, before_tls: bytes = b"S") -> Handler:
    """A server that answers an SSLRequest, and inside of TLS everything else."""

    async def answer(stream: TLSStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(b"answer to " + data)

    inside = tls_handler(server_context(credentials), answer)

    async def serve(stream: trio.SocketStream) -> None:
        assert await exactly(stream, len(SSL_REQUEST)) == SSL_REQUEST
        await stream.send_all(before_tls)
        await inside(stream)

    return serve


def saying(answer: bytes) -> Handler:
    """A server that answers so, and ends."""

    async def serve(stream: trio.SocketStream) -> None:
        await exactly(stream, len(SSL_REQUEST))
        await stream.send_all(answer)
        if answer:
            await stream.receive_some()  # unread bytes would make its end a reset

    return serve


async def refused(dial: Dial, handler: Handler, **options: float) -> UpstreamError:
    async with open_server(handler) as port:
        with trio.fail_after(PATIENCE), pytest.raises(UpstreamError) as caught:
            await dial(port, **options)
    assert f"127.0.0.1:{port}" in caught.value.message
    return caught.value


async def test_tls_begins_after_the_request_for_it(dial: Dial, localhost: Credentials) -> None:
    async with open_server(accepting(localhost)) as port:
        upstream = await dial(port)
        async with upstream.stream as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"answer to hello"
    assert (upstream.alpn, upstream.upgraded) == ("", False)
    assert upstream.tls_version.startswith("TLSv1.")


async def test_a_client_that_does_tls_itself_gets_the_bare_connection(dial: Dial) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with open_server(echo) as port:
        upstream = await dial(port, authenticate=False)
        async with upstream.stream as stream:
            await stream.send_all(SSL_REQUEST)
            assert await exactly(stream, len(SSL_REQUEST)) == SSL_REQUEST
    assert (upstream.alpn, upstream.tls_version, list(upstream.sessions)) == ("", "", [])


@pytest.mark.parametrize("names", [("teleport.example.com",), ()])
async def test_a_server_that_is_not_trusted_sees_nothing(
    names: tuple[str, ...], dial: Dial, web_authority: Authority
) -> None:
    """One with another name, and one of another authority."""
    authority = web_authority if names else make_authority("stranger")
    credentials = make_credentials(authority, *(names or ("127.0.0.1",)))
    error = await refused(dial, accepting(credentials))
    assert error.code is (Code.UPSTREAM_NAME_MISMATCH if names else Code.UPSTREAM_UNTRUSTED)


@pytest.mark.parametrize("answer", [b"N", b"E"], ids=repr)
async def test_a_server_that_declines_tls_is_no_way(answer: bytes, dial: Dial) -> None:
    error = await refused(dial, saying(answer))
    assert error.code is Code.UPSTREAM_TLS_FAILED
    assert f"answered {answer!r} when asked for TLS" in error.message


async def test_a_server_that_closes_instead_of_an_answer_has_closed_early(dial: Dial) -> None:
    error = await refused(dial, saying(b""))
    assert (error.code, error.prospect) == (Code.UPSTREAM_CLOSED_EARLY, Prospect.ONCE)


async def test_a_server_that_closes_before_its_tls_is_not_said_to_lack_alpn(dial: Dial) -> None:
    error = await refused(dial, saying(b"S"))
    assert (error.code, error.prospect) == (Code.UPSTREAM_TLS_FAILED, Prospect.ONCE)
    assert "ALPN" not in error.message


async def test_a_server_that_resets_the_connection_has_closed_early(dial: Dial) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.receive_some()
        stream.socket.close()

    error = await refused(dial, reset)
    assert (error.code, error.prospect) == (Code.UPSTREAM_CLOSED_EARLY, Prospect.SOON)


async def test_a_server_that_does_not_answer_is_given_up(dial: Dial) -> None:
    error = await refused(dial, wait_for_end, handshake_timeout=0.05)
    assert error.code is Code.UPSTREAM_UNREACHABLE
    assert "the request for TLS" in error.message


async def test_what_somebody_slips_in_before_tls_is_not_taken_for_the_server_s(
    dial: Dial, localhost: Credentials
) -> None:
    """A man in the middle could put an answer in front of the encrypted ones (CVE-2021-23222)."""
    error = await refused(dial, accepting(localhost, before_tls=b"SZ\0\0\0\5I"))
    assert error.code in {Code.UPSTREAM_TLS_FAILED, Code.UPSTREAM_NOT_TELEPORT}


async def test_a_protocol_without_a_request_for_tls_is_for_passthrough_only(dial: Dial) -> None:
    class WithoutRequest(Postgres):
        starttls = None  # type: ignore[assignment]

    async with open_server(wait_for_end) as port:
        with pytest.raises(UpstreamError, match="in a way that only passthrough can use") as caught:
            await dial(port, protocol=WithoutRequest())
        upstream = await dial(port, protocol=WithoutRequest(), authenticate=False)
        await upstream.stream.aclose()
    assert caught.value.code is Code.TLS_ROUTING_OFF


@pytest.mark.parametrize("checkpoints", range(0, 40, 3))
async def test_cancelled_after_any_number_of_steps_no_socket_is_left(
    checkpoints: int, dial: Dial, localhost: Credentials
) -> None:
    async with open_server(accepting(localhost)) as port:

        async def connect() -> LayeredStream:
            return (await dial(port)).stream

        await cancel_after(checkpoints, connect)

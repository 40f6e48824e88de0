"""The upgrade test: what each outcome of the handshake means, and real handshakes."""

import socket
from collections.abc import Sequence

import pytest
import trio
from OpenSSL import SSL
from stream_ends import FakeStream
from tls_peers import Credentials, make_credentials, shake_hands
from trio.testing import MockClock

from dbproxy.errors import Code, UpstreamError
from dbproxy.layers import TLSError, TLSLayer, TruncatedError
from dbproxy.relay import LayeredStream
from dbproxy.upstream.upgrade_need import (
    UPGRADE_TEST_ALPN,
    DialTLS,
    UpgradeNeed,
    interpret_upgrade_test,
    needs_upgrade,
)

NO_ALPN_ALERT = b"\x15\x03\x03\x00\x02\x02\x78"  # fatal, no_application_protocol (RFC 7301 §3.2)
REFUSED = TLSError("alert", alert="no application protocol", during_handshake=True)
UNTRUSTED = TLSError("certificate verify failed", alert=None, during_handshake=True)


def explained(cause: Exception) -> UpstreamError:
    error = UpstreamError(Code.ALPN_NOT_SUPPORTED, "the handshake failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("", "without any ALPN"),
        ("h2", "'h2', which was not offered"),
        (REFUSED, "alert no_application_protocol"),
        (explained(REFUSED), "alert no_application_protocol"),
    ],
)
def test_signs_of_a_balancer_require_an_upgrade(outcome: str | Exception, words: str) -> None:
    need = interpret_upgrade_test(outcome)
    assert need.required
    assert need.certain
    assert words in need.reason


def test_a_teleport_proxy_needs_no_upgrade() -> None:
    need = interpret_upgrade_test(UPGRADE_TEST_ALPN)
    assert not need.required
    assert need.certain


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (UNTRUSTED, "certificate verify failed"),
        (TLSError("x", alert="handshake failure", during_handshake=True), "x"),
        (TruncatedError("the connection ended"), "the connection ended"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (trio.BrokenResourceError(), "BrokenResourceError"),
        (UpstreamError(Code.UPSTREAM_UNREACHABLE, "cannot connect"), "cannot connect"),
    ],
)
async def test_any_other_failure_requires_none_and_says_why_and_is_a_guess(
    outcome: Exception, words: str
) -> None:
    async def dial(_alpn: Sequence[str]) -> str:
        await trio.lowlevel.checkpoint()
        raise outcome

    need = await needs_upgrade(dial)
    assert need == interpret_upgrade_test(outcome)
    assert not need.required
    assert not need.certain
    assert words in need.reason


class TestHandshakes:
    """The outcomes as TLS brings them about."""

    async def test_a_server_that_chooses_the_protocol(self, proxy: Credentials) -> None:
        need = await needs_upgrade(dial_server(proxy, UPGRADE_TEST_ALPN.encode()))
        assert (need.required, need.certain) == (False, True)

    async def test_a_server_that_ignores_alpn(self, proxy: Credentials) -> None:
        need = await needs_upgrade(dial_server(proxy, None))
        assert (need.required, need.certain) == (True, True)

    async def test_a_server_that_chooses_what_was_not_offered(self, proxy: Credentials) -> None:
        need = await needs_upgrade(dial_server(proxy, b"h2"))
        assert (need.required, need.certain) == (True, True)
        assert "not offered" in need.reason

    async def test_a_server_that_refuses_with_the_alert(self) -> None:
        need = await needs_upgrade(dial_over(FakeStream(NO_ALPN_ALERT)))
        assert (need.required, need.certain) == (True, True)

    @pytest.mark.parametrize(
        "script", [[b""], [b"HTTP/1.1 400 Bad Request\r\n"], [trio.BrokenResourceError()]]
    )
    async def test_a_server_that_does_not_speak_tls(self, script: list[bytes | Exception]) -> None:
        need = await needs_upgrade(dial_over(FakeStream(*script)))
        assert (need.required, need.certain) == (False, False)

    async def test_a_server_that_is_silent(self, autojump_clock: MockClock) -> None:
        need = await needs_upgrade(dial_over(FakeStream()))
        assert need == UpgradeNeed(
            required=False, reason="gave no answer within 5 s", certain=False
        )
        assert trio.current_time() == pytest.approx(5)


async def test_a_mistake_of_ours_is_not_taken_for_an_outcome() -> None:
    async def dial(_alpn: Sequence[str]) -> str:
        await trio.lowlevel.checkpoint()
        raise KeyError("mistake")

    with pytest.raises(KeyError):
        await needs_upgrade(dial)


async def test_the_test_can_be_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await needs_upgrade(dial_over(FakeStream()))
    assert scope.cancelled_caught


@pytest.fixture(scope="module")
def proxy() -> Credentials:
    return make_credentials(None, "localhost")


def client_for(alpn: Sequence[str]) -> TLSLayer:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_alpn_protos([value.encode() for value in alpn])
    connection.set_connect_state()
    return TLSLayer(connection)


def dial_over(transport: trio.abc.HalfCloseableStream) -> DialTLS:
    """Shakes hands over a transport."""

    async def dial(alpn: Sequence[str]) -> str:
        client = client_for(alpn)
        async with LayeredStream(transport) as stream:
            await stream.add_layer(client)
        return client.connection.get_alpn_proto_negotiated().decode()

    return dial


def dial_server(credentials: Credentials, choice: bytes | None) -> DialTLS:
    """Shakes hands with a server that chooses `choice`, or nothing."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    credentials.use_in(context)
    context.set_alpn_select_callback(
        lambda _connection, _offered: SSL.NO_OVERLAPPING_PROTOCOLS if choice is None else choice
    )
    server = SSL.Connection(context, None)
    server.set_accept_state()

    async def dial(alpn: Sequence[str]) -> str:
        await trio.lowlevel.checkpoint()
        client = client_for(alpn)
        shake_hands(client, TLSLayer(server))
        return client.connection.get_alpn_proto_negotiated().decode()

    return dial


def test_a_name_that_cannot_be_resolved_is_a_guess() -> None:
    need = interpret_upgrade_test(socket.gaierror(-2, "Name or service not known"))
    assert "Name or service not known" in need.reason

"""Letting clients in whose TLS does not end here."""

import pytest
from stream_ends import FakeStream

from dbproxy.downstream import RelayedAdmission
from dbproxy.downstream.client import Client, ClientGone
from dbproxy.errors import ClientError, Code
from dbproxy.protocols import protocol_named
from dbproxy.settings import Mode

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
STARTUP = b"\0\0\0\x0e\0\3\0\0user\0\0"


async def test_passthrough_carries_an_ssl_request() -> None:
    admission = RelayedAdmission(protocol_named("postgres"), Mode.PASSTHROUGH)
    carry = await admission.admit(Client(FakeStream(SSL_REQUEST)))
    assert carry.first_flight == SSL_REQUEST
    assert not carry.authenticate


async def test_tunnel_carries_a_startup_message() -> None:
    transport = FakeStream(SSL_REQUEST, STARTUP)
    admission = RelayedAdmission(protocol_named("postgres"), Mode.TUNNEL)
    carry = await admission.admit(Client(transport))
    assert carry.first_flight == STARTUP
    assert carry.authenticate
    assert transport.sent == b"N"


@pytest.mark.parametrize(
    ("mode", "sent", "code"),
    [
        (Mode.PASSTHROUGH, STARTUP, Code.CLIENT_NOT_TLS),
        (Mode.TUNNEL, b"\x16\x03\x01\0\5", Code.CLIENT_TLS_ON_TUNNEL),
        (Mode.TERMINATE, SSL_REQUEST, Code.CLIENT_TLS_ON_TUNNEL),
    ],
)
async def test_what_the_mode_does_not_serve_is_refused(mode: Mode, sent: bytes, code: Code) -> None:
    admission = RelayedAdmission(protocol_named("postgres"), mode)
    with pytest.raises(ClientError) as caught:
        await admission.admit(Client(FakeStream(sent)))
    assert caught.value.code is code


async def test_a_client_that_goes_away_is_gone() -> None:
    admission = RelayedAdmission(protocol_named("postgres"), Mode.TUNNEL)
    with pytest.raises(ClientGone):
        await admission.admit(Client(FakeStream(b"\0\0", b"")))

"""Certificates that the lab's Proxy rejects although OpenSSL would take them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from lab_client import ECHO_ALPN, SSL_REQUEST, Client, exactly, issue, open_echo_lab, routed, until
from loopback import TLSStream
from upgraded_client import WEBSOCKET, WebSocket, ask, start_tls

from dbproxy.lab import Alert
from dbproxy.lab.alerts import CipherUnknown, encrypted_alert, plaintext_alert
from dbproxy.lab.authority import KeyPair

MONGO = routed(protocol="mongodb")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
OPENSSL_NAMES = {  # where OpenSSL's words are others than the RFC's
    Alert.UNKNOWN_CA: "TLSV1_ALERT_UNKNOWN_CA",
    Alert.ACCESS_DENIED: "TLSV1_ALERT_ACCESS_DENIED",
    Alert.BAD_CERTIFICATE: "ALERT_BAD_CERTIFICATE",
    Alert.CERTIFICATE_EXPIRED: "ALERT_CERTIFICATE_EXPIRED",
    Alert.CERTIFICATE_REVOKED: "ALERT_CERTIFICATE_REVOKED",
    Alert.CERTIFICATE_UNKNOWN: "ALERT_CERTIFICATE_UNKNOWN",
}


@asynccontextmanager
async def open_client(directory: Path) -> AsyncIterator[Client]:
    async with open_echo_lab(directory) as lab:
        with closing(Client(lab, directory)) as client:
            yield client


def context_of(client: Client, pair: KeyPair | None, version: ssl.TLSVersion) -> ssl.SSLContext:
    return client.context(client.lab.web_ca_file.read_bytes(), pair, ECHO_ALPN, version)


async def shake_hands(client: Client, context: ssl.SSLContext) -> TLSStream:
    stream = TLSStream(await client.connect_tcp(), context, server_side=False)
    await stream.do_handshake()
    return stream


async def shake_hands_and_read(
    client: Client, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> bytes:
    stream = TLSStream(await client.connect_tcp(), context, server_side=False)
    if session is not None:
        stream.end.tls.session = session
    await stream.do_handshake()
    return await stream.receive_some()


async def read_inside(outer: trio.abc.Stream, context: ssl.SSLContext) -> bytes:
    inner = TLSStream(outer, context, server_side=False)
    await inner.do_handshake()
    return await inner.receive_some()


async def echoed(stream: trio.abc.Stream) -> bool:
    await stream.send_all(b"hello")
    return await exactly(stream, 5) == b"hello"


@pytest.mark.parametrize("alert", OPENSSL_NAMES)
async def test_tls_1_2_fails_in_the_handshake(tmp_path: Path, alert: Alert) -> None:
    async with open_client(tmp_path) as client:
        context = context_of(client, issue(client.lab, MONGO), ssl.TLSVersion.TLSv1_2)
        client.lab.reject_certificates(alert)
        with pytest.raises(ssl.SSLError, match=OPENSSL_NAMES[alert]):
            await shake_hands(client, context)
        assert client.lab.rejected == 1


@pytest.mark.parametrize("alert", OPENSSL_NAMES)
async def test_tls_1_3_fails_at_the_first_read(tmp_path: Path, alert: Alert) -> None:
    async with open_client(tmp_path) as client:
        context = context_of(client, issue(client.lab, MONGO), ssl.TLSVersion.TLSv1_3)
        client.lab.reject_certificates(alert)
        stream = await shake_hands(client, context)
        with pytest.raises(ssl.SSLError, match=OPENSSL_NAMES[alert]):
            await stream.receive_some()
        await until(
            lambda: client.lab.handshakes[-1].error == "the client certificate was rejected"
        )


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_renewed_certificate_is_accepted(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with open_client(tmp_path) as client:
        old = issue(client.lab, MONGO)
        client.lab.reject_certificates()
        renewed = issue(client.lab, MONGO)
        with pytest.raises(ssl.SSLError):
            await shake_hands_and_read(client, context_of(client, old, version))
        assert await echoed(await shake_hands(client, context_of(client, renewed, version)))
        client.lab.accept_certificates()
        assert await echoed(await shake_hands(client, context_of(client, old, version)))
        assert not list((client.lab.directory / "proxy").glob("*.log"))


async def test_a_rejection_may_replace_another(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        context = context_of(client, issue(client.lab, MONGO), VERSIONS[1])
        for alert in (Alert.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_REVOKED):
            client.lab.reject_certificates(alert)
            with pytest.raises(ssl.SSLError, match=alert.name):
                await shake_hands_and_read(client, context)
        client.lab.accept_certificates()
        client.lab.reject_certificates(Alert.BAD_CERTIFICATE)
        with pytest.raises(ssl.SSLError, match="BAD_CERTIFICATE"):
            await shake_hands_and_read(client, context)


async def test_a_moment_decides(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        now = datetime.now(UTC)
        client.lab.reject_certificates(issued_before=now - timedelta(minutes=10))
        for age, accepted in ((5, True), (15, False)):
            pair = issue(client.lab, MONGO, age=timedelta(minutes=age))
            stream = await shake_hands(client, context_of(client, pair, VERSIONS[1]))
            if accepted:
                assert await echoed(stream)
            else:
                with pytest.raises(ssl.SSLError):
                    await stream.receive_some()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_from_before_is_not_resumed(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with open_client(tmp_path) as client:
        context = context_of(client, issue(client.lab, MONGO), version)
        first = await shake_hands(client, context)
        assert await echoed(first)
        client.lab.reject_certificates()
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_EXPIRED"):
            await shake_hands_and_read(client, context, first.end.tls.session)


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_holds_for_a_database_client_inside(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with open_client(tmp_path) as client:
        pair = issue(client.lab, MONGO)
        client.lab.reject_certificates(Alert.CERTIFICATE_REVOKED)
        outer = await shake_hands(client, context_of(client, None, VERSIONS[1]))
        context = client.context(client.lab.authority.host_ca.pem, pair, version=version)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"):
            await read_inside(outer, context)


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_holds_for_a_postgresql_client_inside(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with open_client(tmp_path) as client, client.connect() as outer:
        pair = issue(client.lab)
        client.lab.reject_certificates(Alert.CERTIFICATE_REVOKED)
        await outer.send_all(SSL_REQUEST)
        assert await exactly(outer, 1) == b"S"
        context = client.context(client.lab.authority.host_ca.pem, pair, version=version)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REVOKED"):
            await read_inside(outer, context)


async def test_it_holds_inside_of_an_upgrade(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, client.connect(alpn=()) as outer:
        pair = issue(client.lab, MONGO)
        client.lab.reject_certificates(Alert.UNKNOWN_CA)
        await ask(outer, "/webapi/connectionupgrade", WEBSOCKET)
        context = client.context(client.lab.authority.host_ca.pem, pair, ECHO_ALPN)
        inner = await start_tls(WebSocket(outer), context)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await inner.receive_some()
        assert "UNKNOWN_CA" in str(caught.value.__cause__)


async def test_a_client_without_a_certificate_is_not_concerned(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        client.lab.reject_certificates(issued_before=datetime.max.replace(tzinfo=UTC))
        async with client.connect(alpn=()) as stream:
            assert (await ask(stream, "/webapi/find")).status == 200


def test_a_plaintext_alert_is_a_whole_record() -> None:
    assert plaintext_alert(Alert.CERTIFICATE_EXPIRED) == bytes((21, 3, 3, 0, 2, 2, 45))


def test_a_cipher_suite_of_another_version_is_refused() -> None:
    with pytest.raises(CipherUnknown):
        encrypted_alert(Alert.UNKNOWN_CA, secret=bytes(32), cipher="ECDHE-RSA-AES128-GCM-SHA256")

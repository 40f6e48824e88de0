"""Differences between Proxies that a client can see in the handshake."""

from __future__ import annotations

import ssl
from contextlib import closing
from pathlib import Path

import pytest
import trio
from lab_client import (
    ECHO_ALPN,
    ECHO_PING_ALPN,
    Client,
    FramedStream,
    exactly,
    issue,
    open_echo_lab,
    routed,
)
from loopback import TLSStream

from dbproxy.lab import Variant

MONGO = routed(protocol="mongodb")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def converse(
    client: Client, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """One connection; its session, which in TLS 1.3 comes behind the handshake."""
    stream = TLSStream(await client.connect_tcp(), context, server_side=False)
    if session is not None:
        stream.end.tls.session = session
    await stream.do_handshake()
    await stream.send_all(b"hello")
    assert await exactly(stream, 5) == b"hello"
    return stream.end.tls.session


@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
async def test_sessions_are_resumed_with_tickets_only(
    tmp_path: Path, version: ssl.TLSVersion, tickets: bool
) -> None:
    async with open_echo_lab(tmp_path, variant=Variant(session_tickets=tickets)) as lab:
        with closing(Client(lab, tmp_path)) as client:
            pair = issue(lab, MONGO)
            context = client.context(lab.web_ca_file.read_bytes(), pair, ECHO_ALPN, version)
            session = await converse(client, context)
            await converse(client, context, session)
            reused = [handshake.session_reused for handshake in lab.handshakes]
            assert reused == [False, tickets]
            assert lab.handshakes[-1].tunnel


@pytest.mark.parametrize(("prefer_plain", "framed"), [(False, True), (True, False)])
async def test_a_server_may_prefer_the_plain_value(
    tmp_path: Path, prefer_plain: bool, framed: bool
) -> None:
    async with open_echo_lab(tmp_path, variant=Variant(prefer_plain=prefer_plain)) as lab:
        client = Client(lab, tmp_path)
        async with client.connect(issue(lab, MONGO), ECHO_PING_ALPN) as stream:
            assert isinstance(stream, FramedStream) == framed
            await stream.send_all(b"hello")
            assert await exactly(stream, 5) == b"hello"
        async with client.connect(issue(lab, MONGO), ECHO_PING_ALPN[:1]) as stream:
            assert isinstance(stream, FramedStream)


async def test_certificates_may_have_further_names(tmp_path: Path) -> None:
    name = "teleport.example.com"
    async with open_echo_lab(tmp_path, variant=Variant(names=(name,))) as lab:
        client = Client(lab, tmp_path)
        context = client.context(lab.web_ca_file.read_bytes(), alpn=ECHO_ALPN)
        async with await client.connect_tcp() as tcp:
            stream = trio.SSLStream(tcp, context, server_hostname=name)
            await stream.do_handshake()
        assert lab.handshakes[-1].server_name == name

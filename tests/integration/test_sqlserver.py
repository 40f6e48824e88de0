"""SQL Server through the whole chain: python-tds, dbproxy, the lab, a stand-in for the server."""

import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytds
import pytest
import trio
from database_clients import in_thread
from lab_client import until
from OpenSSL import SSL
from running_proxy import PATIENCE, ProxyIn, RunningProxy, checked_modes
from tds_messages import NOT_SUPPORTED, TABULAR, login, prelogin

from dbproxy import Mode
from dbproxy.events import UpstreamReady
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.sqlserver import serve_sql_server


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A cluster whose `example-server` is a stand-in for SQL Server."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, serve_sql_server, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        database = DatabaseResource(guide.SERVICE, address, protocol="sqlserver")
        async with open_lab(databases=[database], directory=tmp_path / "lab") as cluster:
            cluster.create_role(guide.role_yaml())
            yield cluster
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def client_certificate(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunningProxy], None]:
    """python-tds has no option for a client certificate, so its TLS context is given one."""

    def show(proxy: RunningProxy) -> None:
        def create_context(cafile: str) -> SSL.Context:
            context = SSL.Context(SSL.TLS_METHOD)
            context.load_verify_locations(cafile)
            context.set_verify(SSL.VERIFY_PEER)
            context.use_certificate_file(str(proxy.started.certificate_file))
            context.use_privatekey_file(str(proxy.started.key_file))
            return context

        monkeypatch.setattr("pytds.tls.create_context", create_context)

    return show


def connect(proxy: RunningProxy, **changes: Any) -> Any:
    parameters: dict[str, Any] = {
        "dsn": "localhost",
        "port": proxy.port,
        "user": "alice",
        "password": "",
        "database": "example",
        "autocommit": True,
        "login_timeout": 15,
        "timeout": 15,
        "cafile": str(proxy.started.ca_file) if proxy.started.ca_file else None,
        "validate_host": False,  # python-tds looks for the name in a way of its own
    }
    return pytds.connect(**(parameters | changes))


def ask(proxy: RunningProxy, sql: str, **changes: Any) -> Any:
    with connect(proxy, **changes) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


@checked_modes
async def test_python_tds_connects_and_asks(
    mode: Mode, proxy_in: ProxyIn, client_certificate: Callable[[RunningProxy], None]
) -> None:
    async with proxy_in(mode) as proxy:
        client_certificate(proxy)
        assert await in_thread(ask, proxy, "SELECT 'grüß Gott'") == ("SELECT 'grüß Gott'",)
        large = await in_thread(ask, proxy, "SELECT REPLICATE('x', 3000000)")
        assert large == ("x" * 3_000_000,)
        statement = f"SELECT '{'y' * 500_000}'"
        assert await in_thread(ask, proxy, statement) == (statement,)
        first, *_ = await proxy.all_closed(3)
    assert (first.outcome, first.code) == ("relayed", None)
    assert (first.database_user, first.database_name) == ("alice", "example")


@checked_modes
async def test_a_connection_that_was_ready_is_no_session_until_python_tds_comes(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, client_certificate: Callable[[RunningProxy], None]
) -> None:
    async with proxy_in(mode, prewarm=1) as proxy:
        client_certificate(proxy)
        await until(lambda: len(proxy.of(UpstreamReady)) == 1, PATIENCE)
        await trio.sleep(0.1)
        assert not lab.audit.events
        assert await in_thread(ask, proxy, "SELECT 1") == ("SELECT 1",)
        record = await proxy.record()
    assert (record.prewarmed, record.attempts) == (True, 1)


async def test_tds_8_begins_with_tls(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TERMINATE) as proxy:
        started = proxy.started
        assert started.ca_file is not None
        assert started.certificate_file is not None
        context = ssl.create_default_context(cafile=str(started.ca_file))
        context.load_cert_chain(started.certificate_file, started.key_file)
        context.set_alpn_protocols(["tds/8.0"])
        stream = trio.SSLStream(await proxy.connect(), context, server_hostname="localhost")
        with trio.fail_after(PATIENCE):
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == "tds/8.0"
            assert stream.version() == "TLSv1.3"
            await stream.send_all(prelogin(NOT_SUPPORTED))
            assert (await stream.receive_some())[0] == TABULAR
            await stream.send_all(login())
            assert b"e\0x\0a\0m\0p\0l\0e\0" in await stream.receive_some()
            await trio.aclose_forcefully(stream)
        assert (await proxy.record()).outcome == "relayed"


async def test_a_client_that_insists_on_tls_in_a_tunnel_goes_away(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(Mode.TUNNEL) as proxy:
        with pytest.raises(pytds.Error, match="not supported by server"):
            await in_thread(partial(ask, proxy, "SELECT 1", cafile=str(lab.web_ca_file)))
        record = await proxy.record()
    assert (record.outcome, record.code) == ("abandoned", "client-tls-on-tunnel")


async def test_a_client_without_tls_is_told_that_it_is_required(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TERMINATE) as proxy:
        with pytest.raises(pytds.Error, match="required by server"):
            await in_thread(partial(ask, proxy, "SELECT 1", cafile=None))
        record = await proxy.record()
    assert (record.outcome, record.code) == ("abandoned", "client-not-tls")


@checked_modes
async def test_teleport_is_down(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, client_certificate: Callable[[RunningProxy], None]
) -> None:
    async with proxy_in(mode, no_discovery=True) as proxy:
        client_certificate(proxy)
        await lab.stop_proxy()
        with pytest.raises(pytds.OperationalError, match=r"dbproxy: .*\[upstream-unreachable\]"):
            await in_thread(ask, proxy, "SELECT 1")

"""MySQL through the whole chain: real clients, dbproxy, the lab, a real MariaDB."""

import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pymysql
import pytest
import trio
from database_clients import in_thread
from lab_client import until
from mariadb_server import MariaDB
from mysql_clients import pymysql_connect, query, run_mariadb, with_pymysql
from running_proxy import PATIENCE, Destination, ProxyIn, every_mode, running_proxy, tls_modes

from dbproxy import Mode
from dbproxy.events import ClosedBy, PrewarmUnavailable
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.alerts import Alert
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.relay import relay

VERSION = "8.4.99-example"


@pytest.fixture
async def lab(mariadb: MariaDB, tmp_path: Path) -> AsyncIterator[Lab]:
    """A cluster whose `example-server` is a MariaDB, and tells another version in tunnels."""
    database = DatabaseResource(guide.SERVICE, mariadb.address, protocol="mysql", version=VERSION)
    async with open_lab(databases=[database], directory=tmp_path / "lab") as cluster:
        cluster.create_role(guide.role_yaml())
        cluster.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        yield cluster


class TestConnecting:
    """Drivers that do what the start message says."""

    @every_mode
    async def test_pymysql_connects_and_asks(self, mode: Mode, proxy_in: ProxyIn) -> None:
        def work(connection: "pymysql.Connection[Any]") -> Any:
            rows = query("SELECT words FROM greetings ORDER BY id")(connection)
            # Without COM_QUIT: it makes the server hang up too, and either may be the first.
            connection._force_close()  # type: ignore[attr-defined]
            return rows

        async with proxy_in(mode) as proxy:
            rows = await with_pymysql(proxy, work)
            assert rows == (("hello",), ("bonjour",), ("grüß Gott",))
            record = await proxy.record()
        assert (record.outcome, record.code) == ("relayed", None)
        assert record.closed_by is ClosedBy.CLIENT
        assert record.bytes_up > 0
        assert record.bytes_down > 100
        if mode is not Mode.PASSTHROUGH:
            assert (record.database_user, record.database_name) == ("alice", "example")

    async def test_none_is_connected_before_a_client_comes(
        self, proxy_in: ProxyIn, lab: Lab
    ) -> None:
        async with proxy_in(Mode.TUNNEL, prewarm=2) as proxy:
            (event,) = proxy.of(PrewarmUnavailable)
            assert "MySQL" in event.reason
            await trio.sleep(0.2)
            assert not [facts for facts in lab.handshakes if "mysql" in (facts.alpn or "")]
            assert await with_pymysql(proxy, query("SELECT 1")) == ((1,),)
            assert not (await proxy.record()).prewarmed

    @every_mode
    async def test_the_pasted_line_starts_the_mariadb_client(
        self, mode: Mode, proxy_in: ProxyIn
    ) -> None:
        async with proxy_in(mode) as proxy:
            done = await run_mariadb(proxy, "SELECT words FROM greetings WHERE id = 2")
        assert (done.status, done.out) == (0, "bonjour\n"), done.err

    @every_mode
    async def test_large_results_and_long_statements_arrive_whole(
        self, mode: Mode, proxy_in: ProxyIn
    ) -> None:
        def work(connection: "pymysql.Connection[Any]") -> tuple[Any, Any]:
            with connection.cursor() as cursor:
                cursor.execute("SELECT REPEAT('x', 9000000)")
                large = cursor.fetchone()
                cursor.execute("SELECT LENGTH(%s)", ("y" * 9_000_000,))
                return large, cursor.fetchone()

        async with proxy_in(mode) as proxy:
            large, length = await with_pymysql(proxy, work)
        assert large == ("x" * 9_000_000,)
        assert length == (9_000_000,)

    @every_mode
    async def test_many_clients_at_once(self, mode: Mode, proxy_in: ProxyIn) -> None:
        async def one() -> None:
            assert await with_pymysql(proxy, query("SELECT 1")) == ((1,),)

        async with proxy_in(mode) as proxy, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)

    async def test_a_client_reconnects(self, proxy_in: ProxyIn) -> None:
        def work() -> None:
            connection = pymysql_connect(proxy)
            connection.close()
            connection.connect()
            connection.ping()
            connection.close()

        async with proxy_in(Mode.TERMINATE) as proxy:
            await in_thread(work)
            assert [r.outcome for r in await proxy.all_closed(2)] == ["relayed"] * 2


async def test_silent_and_garbage_sockets_do_not_disturb_others(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(Mode.TERMINATE, prologue_timeout=1.0) as proxy, AsyncExitStack() as stack:
        for number in range(60):
            socket = await stack.enter_async_context(await proxy.connect())
            if number % 3 == 0:
                await socket.send_all(b"\x00\xffgarbage" * 20)
        assert await with_pymysql(proxy, query("SELECT 1")) == ((1,),)
        records = await proxy.all_closed(61)
        await until(lambda: lab.connections == 0, PATIENCE)
    assert sorted({record.code or "" for record in records}) == [
        "",
        "client-protocol-error",
        "client-stalled",
    ]


class TestLogins:
    """The login of a real server, which Teleport would do itself, through `--terminate`."""

    @pytest.fixture
    async def lab(self, mariadb: MariaDB, tmp_path: Path) -> AsyncIterator[Lab]:
        async def to_the_database(stream: trio.abc.HalfCloseableStream, _: Handshake) -> None:
            async with await trio.open_unix_socket(mariadb.socket) as server:
                await relay(stream, server, count_from_client=_nobody, count_to_client=_nobody)

        database = DatabaseResource(guide.SERVICE, mariadb.address, protocol="mysql")
        async with open_lab(
            databases=[database], directory=tmp_path / "lab", handler=to_the_database
        ) as cluster:
            cluster.create_role(guide.role_yaml())
            yield cluster

    @pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
    async def test_with_a_password(self, mode: Mode, proxy_in: ProxyIn) -> None:
        async with proxy_in(mode) as proxy:
            use = query("SELECT user()")
            rows = await with_pymysql(proxy, use, user="carol", password="secret")
            assert rows == (("carol@localhost",),)
            with pytest.raises(pymysql.err.OperationalError, match="Access denied") as caught:
                await with_pymysql(proxy, use, user="carol", password="wrong")
        assert caught.value.args[0] == 1045

    @pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
    @pytest.mark.parametrize("password", ["secret", ""])
    async def test_with_a_switch_to_another_plugin(
        self, mode: Mode, password: str, proxy_in: ProxyIn
    ) -> None:
        user = "carol" if password else "alice"
        async with proxy_in(mode) as proxy:
            command = [
                *shlex.split(proxy.started.connect_command),
                *("--default-auth=mysql_clear_password", f"--user={user}"),
                f"--password={password}",
            ]
            done = await run_mariadb(proxy, "SELECT user()", command=command)
        assert (done.status, done.out) == (0, f"{user}@localhost\n"), done.err


def _nobody(_size: int) -> None:
    """Counts nothing."""


class TestVersions:
    """Which server version clients are told."""

    async def _version(self, proxy: Any) -> str:
        def version(connection: "pymysql.Connection[Any]") -> str:
            return str(connection.get_server_info())  # type: ignore[no-untyped-call]

        return await with_pymysql(proxy, version)

    @pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.TERMINATE])
    async def test_teleport_knows_it_in_a_tunnel(self, mode: Mode, proxy_in: ProxyIn) -> None:
        async with proxy_in(mode) as proxy:
            assert await self._version(proxy) == VERSION

    async def test_in_passthrough_it_can_be_chosen(self, lab: Lab, proxy_in: ProxyIn) -> None:
        async with proxy_in(Mode.PASSTHROUGH, mysql_version="10.6.1-mine") as proxy:
            assert await self._version(proxy) == "10.6.1-mine"
        assert lab.handshakes[-1].alpn == "teleport-mysql-ping"
        assert lab.handshakes[-1].client_certificate is None

    async def test_in_passthrough_teleport_chooses_without_it(self, proxy_in: ProxyIn) -> None:
        async with proxy_in(Mode.PASSTHROUGH) as proxy:
            assert await self._version(proxy) == "8.0.0-Teleport"


class TestRefusals:
    """What the driver's exception says."""

    @tls_modes
    async def test_a_client_without_tls(self, mode: Mode, proxy_in: ProxyIn) -> None:
        async with proxy_in(mode) as proxy:
            with pytest.raises(pymysql.err.OperationalError) as caught:
                await with_pymysql(proxy, query("SELECT 1"), ssl=None, ssl_disabled=True)
            record = await proxy.record()
        number, text = caught.value.args
        assert number == 3159
        assert "[client-not-tls]" in text
        assert text.endswith(".")
        assert (record.outcome, record.code) == ("refused", "client-not-tls")

    async def test_a_client_without_certificate(self, proxy_in: ProxyIn) -> None:
        async with proxy_in(Mode.TERMINATE) as proxy:
            with pytest.raises(pymysql.err.OperationalError) as caught:
                await with_pymysql(proxy, query("SELECT 1"), certificate=False)
        number, text = caught.value.args
        assert number == 1045
        assert "[client-certificate-missing]" in text

    @every_mode
    async def test_a_user_that_the_role_does_not_allow(self, mode: Mode, proxy_in: ProxyIn) -> None:
        async with proxy_in(mode) as proxy:
            with pytest.raises(pymysql.err.OperationalError, match="access to db denied") as caught:
                await with_pymysql(proxy, query("SELECT 1"), user="bob")
        assert caught.value.args[0] == 1105

    @every_mode
    async def test_teleport_is_down(self, mode: Mode, lab: Lab, proxy_in: ProxyIn) -> None:
        async with proxy_in(mode, no_discovery=True) as proxy:
            await lab.stop_proxy()
            with pytest.raises(pymysql.err.OperationalError) as caught:
                await with_pymysql(proxy, query("SELECT 1"))
            done = await run_mariadb(proxy, "SELECT 1")
        number, text = caught.value.args
        assert number == 1429
        assert text.startswith("dbproxy: ")
        assert "[upstream-unreachable]" in text
        assert done.status == 1
        # Without TLS as it came; with TLS as 2002, since the error is not authenticated.
        assert (
            "ERROR 1429 (HY000): dbproxy: " if mode is Mode.TUNNEL else "ERROR 2002"
        ) in done.err
        assert "[upstream-unreachable]" in done.err

    async def test_teleport_rejects_our_certificate(
        self, lab: Lab, destination: Destination
    ) -> None:
        lab.reject_certificates(Alert.UNKNOWN_CA)
        async with running_proxy(Mode.TUNNEL, lab, destination.directory) as proxy:
            with pytest.raises(pymysql.err.OperationalError) as caught:
                await with_pymysql(proxy, query("SELECT 1"))
        assert caught.value.args[0] == 1045
        assert "[certificate-rejected]" in caught.value.args[1]

    async def test_the_mariadb_client_prints_why(self, proxy_in: ProxyIn) -> None:
        async with proxy_in(Mode.TERMINATE) as proxy:
            command = proxy.started.connect_command
            words = [word for word in shlex.split(command) if "-cert=" not in word]
            words = [word for word in words if "-key=" not in word]
            done = await run_mariadb(proxy, "SELECT 1", command=words)
        assert done.status == 1
        assert "ERROR 1045 (28000): dbproxy: " in done.err
        assert "[client-certificate-missing]" in done.err

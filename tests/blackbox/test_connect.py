"""`dbproxy env` and `dbproxy connect` with the real clients, in a lab."""

import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from beside_lab import BesideLab, run_program
from commands import COMMAND, clean_environment
from database_servers import mongodb_server, redis_server
from mariadb_server import MariaDB, mariadb_server

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab

every_mode = pytest.mark.parametrize("mode", [(), ("--terminate",), ("--tunnel",)])
SQL = "SELECT words FROM greetings WHERE id = 2"
SCHEMA = """
CREATE USER alice@localhost; CREATE DATABASE example; GRANT ALL ON example.* TO alice@localhost;
"""


@pytest.fixture
async def beside(lab: Lab, tmp_path: Path) -> BesideLab:
    return await BesideLab.make(lab, tmp_path)


@asynccontextmanager
async def beside_a(protocol: str, address: str, directory: Path) -> AsyncIterator[BesideLab]:
    """A lab with one database of another protocol."""
    database = DatabaseResource(guide.SERVICE, address, protocol)
    async with open_lab(databases=[database], directory=directory / "lab") as lab:
        lab.create_role(guide.role_yaml())
        lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        yield await BesideLab.make(lab, directory)


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with mariadb_server() as server:
        server.execute(SCHEMA)
        yield server


class TestEnv:
    """What `dbproxy env` prints is used as it is said to be."""

    @every_mode
    async def test_a_shell_that_evaluates_it_has_a_psql_that_connects(
        self, beside: BesideLab, mode: tuple[str, ...]
    ) -> None:
        async with beside.running("db", *mode) as proxy:
            port = await proxy.port()
            command = shlex.join([COMMAND, *beside.options, "env", *mode, f"--port={port}"])
            script = f'eval "$({command})" && psql -X -A -t -c "{SQL}"'
            elsewhere = {"PGSERVICE": "x", "PGHOSTADDR": "192.0.2.1"}
            outcome = await run_program(
                "sh", "-c", script, env=clean_environment(beside.home, elsewhere)
            )
        assert (outcome.status, outcome.out) == (0, "bonjour\n"), outcome.err

    @every_mode
    @pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "sqlalchemy"])
    async def test_a_driver_connects_with_its_uri(
        self, beside: BesideLab, mode: tuple[str, ...], driver: str
    ) -> None:
        async with beside.running("db", *mode) as proxy:
            port = await proxy.port()
            shown = await beside.run(
                "env", *mode, f"--port={port}", "--format=dsn", f"--driver={driver}"
            )
            assert shown.status == 0, shown.err
            outcome = await run_program(
                *(sys.executable, "-c", PROGRAMS[driver], shown.out.strip()),
                env=clean_environment(beside.home),
            )
        assert (outcome.status, outcome.out) == (0, "alice\n"), outcome.err

    async def test_a_unix_socket_leads_psql_there(self, beside: BesideLab) -> None:
        listen = ("--tunnel", f"--listen=unix://{beside.home}/.s.PGSQL.5433")
        async with beside.running("db", *listen) as proxy:
            await proxy.started()
            shown = await beside.run("env", *listen, "--format=dsn")
            outcome = await run_program(
                *("psql", "-X", "-A", "-t", "-c", SQL, shown.out.strip()),
                env=clean_environment(beside.home),
            )
        assert (outcome.status, outcome.out) == (0, "bonjour\n"), outcome.err

    async def test_nothing_is_opened_and_nobody_asked(self, beside: BesideLab) -> None:
        await beside.lab.stop_proxy()
        outcome = await beside.run("env", "--port=12345", "--format=dotenv")
        assert outcome.status == 0
        assert "PGPORT=12345" in outcome.out


PROGRAMS = {
    "psycopg": """
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0])
""",
    "asyncpg": """
import asyncio, sys, asyncpg
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    print(await connection.fetchval("SELECT current_user::text"))
    await connection.close()
asyncio.run(main())
""",
    "sqlalchemy": """
import sys, sqlalchemy
with sqlalchemy.create_engine(sys.argv[1]).connect() as connection:
    print(connection.execute(sqlalchemy.text("SELECT current_user")).scalar())
""",
}


class TestConnect:
    """The usual client, with what it needs."""

    @every_mode
    async def test_it_starts_psql(self, beside: BesideLab, mode: tuple[str, ...]) -> None:
        more = ("-X", "-A", "-t", "-c", SQL)
        outcome = await beside.run("connect", *mode, "example-server", "--", *more)
        assert (outcome.status, outcome.out) == (0, "bonjour\n"), outcome.err

    async def test_the_clients_exit_status_is_passed_on(self, beside: BesideLab) -> None:
        outcome = await beside.run("connect", "--", "-X", "-c", "SELEC")
        assert outcome.status == 1
        outcome = await beside.run("connect", "--", "--no-such-option")
        assert outcome.status == 1
        assert "dbproxy" not in outcome.err

    async def test_a_client_that_is_not_installed_is_named(self, beside: BesideLab) -> None:
        outcome = await beside.run("connect", env={"PATH": "/nowhere"})
        assert outcome.status == 127
        assert "there is no psql in PATH (/nowhere)" in outcome.error

    async def test_ctrl_c_is_the_clients_own_affair(self, beside: BesideLab) -> None:
        """psql at a terminal: it cancels the query, as often as one likes, and goes on."""
        directory = beside.home / "bin"
        directory.mkdir()
        program = directory / "psql"
        program.write_text(f"#!{sys.executable}\n{COUNTS}")
        program.chmod(0o700)
        path = f"{directory}:{os.environ['PATH']}"
        async with beside.at_terminal("connect", env={"PATH": path}) as (command, terminal):
            await command.out.first("ready")
            for number in range(1, 4):
                os.write(terminal, b"\x03")
                await command.out.first(f"interrupted {number}$")
            assert await command.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert not any("interrupted 4" in line for line in command.out.received)

    @every_mode
    async def test_it_starts_redis_cli(self, tmp_path: Path, mode: tuple[str, ...]) -> None:
        async with redis_server() as address, beside_a("redis", address, tmp_path) as beside:
            outcome = await beside.run("connect", *mode, "--", "ECHO", "hello")
            assert (outcome.status, outcome.out) == (0, "hello\n"), outcome.err
            program = "import os, redis; print(redis.from_url(os.environ['REDIS_URL']).ping())"
            outcome = await beside.run("run", *mode, "--", sys.executable, "-c", program)
            assert (outcome.status, outcome.out) == (0, "True\n"), outcome.err

    @every_mode
    async def test_it_starts_mysql(
        self, tmp_path: Path, mariadb: MariaDB, mode: tuple[str, ...]
    ) -> None:
        async with beside_a("mysql", mariadb.address, tmp_path) as beside:
            more = ("-N", "-B", "-e", "SELECT DATABASE()")
            outcome = await beside.run("connect", *mode, "--", *more)
            assert (outcome.status, outcome.out) == (0, "example\n"), outcome.err
            program = (
                "import os, sqlalchemy\n"
                "engine = sqlalchemy.create_engine(os.environ['URI'])\n"
                "with engine.connect() as connection:\n"
                "    print(connection.execute(sqlalchemy.text('SELECT DATABASE()')).scalar())"
            )
            async with beside.running("db", *mode) as proxy:
                port = f"--port={await proxy.port()}"
                shown = await beside.run("env", *mode, port, "--format=dsn", "--driver=sqlalchemy")
                environment = clean_environment(beside.home, {"URI": shown.out.strip()})
                outcome = await run_program(sys.executable, "-c", program, env=environment)
            assert (outcome.status, outcome.out) == (0, "example\n"), outcome.err

    async def test_without_tls_a_mysql_client_needs_nothing_but_the_variables(
        self, tmp_path: Path, mariadb: MariaDB
    ) -> None:
        client = ("mariadb", "--no-defaults", "--skip-ssl", "-u", "alice", "-N", "-B", "-e")
        async with beside_a("mysql", mariadb.address, tmp_path) as beside:
            outcome = await beside.run("run", "--tunnel", "--", *client, "SELECT 42")
        assert (outcome.status, outcome.out) == (0, "42\n"), outcome.err

    async def test_pymongo_connects_with_the_uri(self, tmp_path: Path) -> None:
        program = (
            "import os, pymongo\n"
            "ping = pymongo.MongoClient(os.environ['MONGODB_URI']).admin.command('ping')\n"
            "print(float(ping['ok']))"
        )
        async with mongodb_server() as address, beside_a("mongodb", address, tmp_path) as beside:
            outcome = await beside.run("run", "--tunnel", "--", sys.executable, "-c", program)
            assert (outcome.status, outcome.out) == (0, "1.0\n"), outcome.err
            outcome = await beside.run("run", "--", "sh", "-c", "echo ${MONGODB_URI-none}")
            assert (outcome.status, outcome.out) == (0, "none\n")
            assert "format: mongo" in outcome.err

    async def test_where_there_is_no_client_it_says_what_to_use_instead(
        self, tmp_path: Path
    ) -> None:
        async with beside_a("elasticsearch", "127.0.0.1:1", tmp_path) as beside:
            outcome = await beside.run("connect")
        assert outcome.status == 2
        assert "dbproxy run SERVICE -- curl" in outcome.error


COUNTS = """
import os, signal
count = 0
def interrupt(_number, _frame):
    global count
    count += 1
    print("interrupted", count, flush=True)
signal.signal(signal.SIGINT, interrupt)
print("ready", flush=True)
while True:
    signal.pause()
"""

"""A lab with a database of each protocol and dbproxy in front of them, in a thread of its own.

The drivers of the conformance table block, and one stage serves all of them, so that the servers
start once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio
from database_servers import mongodb_server, redis_server
from drivers import GREETING, LARGE, LARGE_LINES, Endpoint
from lab_client import issue, until
from loopback import open_server
from mariadb_server import MariaDB
from pymongo import MongoClient
from redis import Redis
from running_proxy import PATIENCE, RunningProxy, settings_for

from dbproxy import Mode, open_database_proxy
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.authority import Authority
from dbproxy.lab.cassandra import Cassandra
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres, execute
from dbproxy.lab.search_engine import SearchEngine
from dbproxy.lab.sqlserver import serve_sql_server

T = TypeVar("T")

DENIED = "bob"
"""A database user that the role does not allow."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


@dataclass
class Stage:
    """What is running.

    Attributes:
        lab: The cluster.
        directory: Where destinations are.
        keys: What certificates are made with.
    """

    lab: Lab
    directory: Path
    keys: Sequence[PrivateKey] = field(repr=False)
    _nursery: trio.Nursery = field(repr=False)
    _token: trio.lowlevel.TrioToken = field(repr=False)
    _endpoints: dict[tuple[str, Mode, str], Endpoint] = field(default_factory=dict)

    def endpoint(self, protocol: str, mode: Mode, user: str = guide.DATABASE_USER) -> Endpoint:
        """Where clients of a protocol connect; dbproxy has a certificate for that user.

        Raises:
            UsageError: Teleport does not serve the protocol in this mode.
        """
        key = protocol, mode, user
        if key not in self._endpoints:
            self._endpoints[key] = self._run(self._start, protocol, mode, user)
        return self._endpoints[key]

    def with_foreign_certificate(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint for a client whose certificate is of another cluster."""
        pair = issue(self.lab, authority=Authority.create().user_ca)
        directory = self.directory / f"foreign-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        contents = {
            "tlscert": pair.certificate_pem,
            "key": pair.key_pem,
            "mongo.crt": pair.certificate_pem + pair.key_pem,
        }
        for name, content in contents.items():
            (directory / name).touch(mode=0o600)
            (directory / name).write_bytes(content)
        return endpoint.with_files(*(directory / name for name in contents))

    def cut_connections(self) -> None:
        """Restart the Teleport Proxy: every connection ends."""
        self._run(self._restart)

    def until_nobody_is_connected(self) -> None:
        """Wait until the Teleport Proxy has no connection any more."""
        self._run(until, lambda: self.lab.connections == 0, PATIENCE)

    def run_sync(self, function: Callable[[], object]) -> None:
        """Call a function in the stage's thread."""
        trio.from_thread.run_sync(function, trio_token=self._token)

    def _run(self, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        return trio.from_thread.run(function, *arguments, trio_token=self._token)

    async def _restart(self) -> None:
        await self.lab.stop_proxy()
        await self.lab.start_proxy()

    async def _start(self, protocol: str, mode: Mode, user: str) -> Endpoint:
        destination = await self._destination(protocol, user)
        endpoint: Endpoint = await self._nursery.start(self._proxy, destination, mode)
        return endpoint

    async def _destination(self, protocol: str, user: str) -> Path:
        destination = self.directory / f"{protocol}-{user}"
        if not destination.exists():
            config = guide.tbot_yaml(
                self.lab.tokens[guide.BOT],
                proxy=self.lab.address,
                destination=destination,
                service=service_of(protocol),
                db_user=user,
                templates=["mongo"],
            )
            await self.lab.tbot(config, generate_key=lambda: self.keys[0]).renew()
        return destination

    async def _proxy(
        self, destination: Path, mode: Mode, task_status: trio.TaskStatus[Endpoint]
    ) -> None:
        settings = settings_for(mode, self.lab, destination)
        async with open_database_proxy(settings) as started:
            tls = mode is not Mode.TUNNEL
            task_status.started(
                Endpoint(
                    mode=mode,
                    port=RunningProxy(started, []).port,
                    user=started.database_user or "",
                    database=started.database_name or "",
                    ca_file=started.ca_file,
                    certificate_file=started.certificate_file,
                    key_file=started.key_file,
                    combined_file=destination / "mongo.crt" if tls else None,
                    command=started.connect_command,
                )
            )
            await trio.sleep_forever()


def service_of(protocol: str) -> str:
    """The name of the database resource of a protocol."""
    return f"{protocol}-server"


@contextmanager
def running_stage(
    postgres: EmbeddedPostgres, mariadb: MariaDB, directory: Path, keys: Sequence[PrivateKey]
) -> Iterator[Stage]:
    """Set the stage for the length of the block."""
    _fill_postgres(postgres)
    _fill_mariadb(mariadb)
    known = {
        "postgres": postgres.address,
        "cockroachdb": postgres.address,
        "mysql": mariadb.address,
    }
    stage: Future[Stage] = Future()
    stop = trio.Event()

    async def run() -> None:
        async with _open_stage(known, directory, keys) as running:
            stage.set_result(running)
            await stop.wait()

    with ThreadPoolExecutor(1, "stage") as threads:
        ended = threads.submit(trio.run, run)
        both: list[Future[Any]] = [stage, ended]
        wait(both, START_TIMEOUT, FIRST_COMPLETED)
        if not stage.done():
            ended.result(0)
        try:
            yield stage.result()
        finally:
            stage.result().run_sync(stop.set)
            ended.result(STOP_TIMEOUT)


@asynccontextmanager
async def _open_stage(
    known: Mapping[str, str], directory: Path, keys: Sequence[PrivateKey]
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        addresses = dict(known)
        addresses["redis"] = await stack.enter_async_context(redis_server())
        addresses["mongodb"] = await stack.enter_async_context(mongodb_server())
        await trio.to_thread.run_sync(_fill_redis, addresses["redis"])
        await trio.to_thread.run_sync(_fill_mongodb, addresses["mongodb"])
        for protocol, serve in STAND_INS.items():
            port = await stack.enter_async_context(open_server(serve))
            addresses[protocol] = f"127.0.0.1:{port}"
        databases = [
            DatabaseResource(service_of(protocol), address, protocol)
            for protocol, address in addresses.items()
        ]
        lab = await stack.enter_async_context(
            open_lab(databases=databases, directory=directory / "lab")
        )
        lab.create_role(guide.role_yaml())
        lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        nursery = await stack.enter_async_context(trio.open_nursery())
        yield Stage(lab, directory, keys, nursery, trio.lowlevel.current_trio_token())
        nursery.cancel_scope.cancel()


STAND_INS = {
    "sqlserver": serve_sql_server,
    "cassandra": Cassandra({"greetings": [GREETING], "large_lines": LARGE_LINES}).serve,
    "elasticsearch": SearchEngine(
        {
            "/": {"words": "a stand-in"},
            "/greetings/1": {"words": GREETING},
            "/large_lines": {"words": LARGE},
        }
    ).serve,
}


def _fill_postgres(postgres: EmbeddedPostgres) -> None:
    execute(postgres, f"SET ROLE alice; {_large_lines('text')}", guide.DATABASE)


def _fill_mariadb(mariadb: MariaDB) -> None:
    mariadb.execute(f"USE {guide.DATABASE}; {_large_lines('MEDIUMTEXT')}")


def _large_lines(kind: str) -> str:
    """SQL that makes the table anew; each test module sets a stage of its own."""
    rows = ", ".join(f"({number}, '{line}')" for number, line in enumerate(LARGE_LINES))
    return (
        "DROP TABLE IF EXISTS large_lines;"
        f" CREATE TABLE large_lines (id INT PRIMARY KEY, words {kind} NOT NULL);"
        f" INSERT INTO large_lines VALUES {rows};"
    )


def _fill_redis(address: str) -> None:
    with closing(Redis(unix_socket_path=address.removeprefix("unix://"))) as client:
        client.set("greeting:1", GREETING)
        client.rpush("large_lines", *LARGE_LINES)


def _fill_mongodb(address: str) -> None:
    lines = [{"number": number, "words": line} for number, line in enumerate(LARGE_LINES)]
    with MongoClient[dict[str, object]](f"mongodb://{address}/") as client:
        client[guide.DATABASE]["greetings"].insert_one({"number": 1, "words": GREETING})
        client[guide.DATABASE]["large_lines"].insert_many(lines)

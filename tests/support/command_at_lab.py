"""The installed command in front of a lab, and real clients of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import trio
from commands import RunningCommand, running_dbproxy

from dbproxy.lab import Lab, guide
from dbproxy.lab.keys import new_ecdsa_key


@asynccontextmanager
async def running_at_lab(
    lab: Lab, directory: Path, *arguments: str, own_group: bool = False
) -> AsyncIterator[tuple[RunningCommand, Path]]:
    """A proxy for the lab's database, with a destination that a tbot has written."""
    destination = directory / "machine-id"
    config = guide.tbot_yaml(lab.tokens["app"], proxy=lab.address, destination=destination)
    tbot = lab.tbot(config, generate_key=new_ecdsa_key)
    (directory / "tbot.yaml").write_text(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(tbot.run)
        options = ("-c", directory / "tbot.yaml", "--proxy-ca", lab.web_ca_file)
        async with running_dbproxy(
            *options, "--log-format=json", "db", *arguments, home=directory, own_group=own_group
        ) as command:
            yield command, destination
        nursery.cancel_scope.cancel()


async def connect(command: RunningCommand, destination: Path) -> psycopg.Connection:
    """A real client's connection, with the files of the destination, as in the guide."""
    port = await command.port()

    def connect() -> psycopg.Connection:
        return psycopg.connect(
            f"host=localhost port={port} user=alice dbname=example sslmode=verify-full"
            f" sslrootcert={destination}/teleport-host-ca.crt"
            f" sslcert={destination}/tlscert sslkey={destination}/key",
            autocommit=True,
            connect_timeout=10,
        )

    return await trio.to_thread.run_sync(connect)


def greet(connection: psycopg.Connection) -> str:
    """What the database of the lab says."""
    row = connection.execute("SELECT words FROM greetings WHERE id = 1").fetchone()
    assert row is not None
    return str(row[0])

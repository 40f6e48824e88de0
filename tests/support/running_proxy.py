"""dbproxy in the test's own process, and the destination that it needs."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import trio
from lab_client import until

from dbproxy import ConnectionRecord, Event, Mode, Settings, Started, open_database_proxy
from dbproxy.events import ConnectionClosed
from dbproxy.lab import Lab, guide
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.tbot import Tbot

PATIENCE = 20.0
"""Seconds: far more than anything here takes, even on a busy machine."""

every_mode = pytest.mark.parametrize("mode", list(Mode))
tls_modes = pytest.mark.parametrize("mode", [Mode.PASSTHROUGH, Mode.TERMINATE])
checked_modes = pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
"""The modes in which dbproxy itself authenticates to the Teleport Proxy."""

E = TypeVar("E", bound=Event)


@dataclass
class RunningProxy:
    """A proxy that listens.

    Attributes:
        started: What it announced.
        events: Everything that it has published.
    """

    started: Started
    events: list[Event]

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.started.address.rpartition(":")[2])

    @property
    def records(self) -> list[ConnectionRecord]:
        """The records of the connections that have ended."""
        return [event.record for event in self.of(ConnectionClosed)]

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def record(self, number: int = 1) -> ConnectionRecord:
        """Wait for the record of the connection with this id."""
        await until(lambda: any(record.id == number for record in self.records), PATIENCE)
        return next(record for record in self.records if record.id == number)

    async def all_closed(self, count: int) -> list[ConnectionRecord]:
        """Wait until that many connections have ended, and return their records."""
        await until(lambda: len(self.records) >= count, PATIENCE)
        return self.records

    def parameters(self, **changes: object) -> dict[str, str]:
        """libpq's parameters, as the start message names them; `None` leaves one out."""
        started = self.started
        parameters: dict[str, object] = {
            "host": "localhost",
            "port": self.started.address.rpartition(":")[2],
            "user": started.database_user,
            "dbname": started.database_name,
            "sslmode": "disable" if started.mode is Mode.TUNNEL else "verify-full",
            "sslrootcert": started.ca_file,
            "sslcert": started.certificate_file,
            "sslkey": started.key_file,
            "connect_timeout": 15,
        }
        parameters |= changes
        return {key: str(value) for key, value in parameters.items() if value is not None}

    async def connect(self) -> trio.SocketStream:
        """A bare TCP connection to the listener."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)


class ProxyIn(Protocol):
    """Runs a proxy in a mode, for the lab and the destination of the test."""

    def __call__(
        self, mode: Mode, **settings: Any
    ) -> AbstractAsyncContextManager[RunningProxy]: ...


def settings_for(mode: Mode, lab: Lab, destination: Path, **changes: Any) -> Settings:
    """The settings for a proxy in a mode, which reaches a lab with a destination."""
    values: dict[str, Any] = {
        "destination_dir": destination,
        "proxy": lab.address,
        "proxy_ca": lab.web_ca_file,
        "tunnel": mode is Mode.TUNNEL,
        "terminate": mode is Mode.TERMINATE,
        "drain_timeout": 5.0,
        "connect_grace": 0.0,  # tests of refusals need not wait; those of retries give one
        "no_discovery": "proxy" in changes,  # else the lab leads around what the test puts there
    }
    return Settings(**(values | changes))


@asynccontextmanager
async def running_proxy(
    mode: Mode, lab: Lab, destination: Path, **settings: Any
) -> AsyncIterator[RunningProxy]:
    """Run a proxy for the length of the block."""
    events: list[Event] = []
    chosen = settings_for(mode, lab, destination, **settings)
    async with open_database_proxy(chosen, events.append) as started:
        yield RunningProxy(started, events)


@dataclass
class Destination:
    """A destination that the lab's writer keeps.

    Attributes:
        directory: Where it is.
        lab: The cluster that its certificates come from.
        keys: The keys of the renewals, in turn.
    """

    directory: Path
    lab: Lab
    keys: Sequence[PrivateKey] = field(repr=False)

    def __post_init__(self) -> None:
        self._next_key: Callable[[], PrivateKey] = cycle(self.keys).__next__
        self.lab.tokens.get(guide.BOT) or self.lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])

    async def renew(self, *, gap: float = 0.0, **changes: str) -> Tbot:
        """Write everything anew: in place, with another key.

        Args:
            gap: Seconds from file to file.
            changes: What is to be otherwise in the guide's tbot.yaml: `service`, `db_user`,
                `certificate_ttl`, …
        """
        config = guide.tbot_yaml(
            self.lab.tokens[guide.BOT],
            proxy=self.lab.address,
            destination=self.directory,
            **changes,
        )
        tbot = self.lab.tbot(config, gap=gap, generate_key=self._next_key)
        await tbot.renew()
        return tbot

    def copy_to(self, directory: Path) -> Path:
        """A copy of the present generation, which renewals leave alone."""
        directory.mkdir(mode=0o700)
        for file in self.directory.iterdir():
            copy = directory / file.name
            copy.touch(mode=0o600)
            copy.write_bytes(file.read_bytes())
        return directory

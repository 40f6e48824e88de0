"""Cassandra's driver, against a stand-in for the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cassandra import OperationTimedOut, Unavailable
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.connection import ConnectionException
from cassandra.policies import ConstantReconnectionPolicy, RoundRobinPolicy

from drivers.base import TIMEOUT, Driver, Endpoint, Session

RECONNECTION_DELAY = 0.05


@dataclass(frozen=True)
class DataStaxSession(Session):
    session: Any

    def greeting(self) -> str:
        return self.ask("SELECT words FROM greetings")

    def large(self) -> str:
        return self.ask("SELECT words FROM large_lines")

    def ask(self, cql: str) -> str:
        return "\n".join(row.words for row in self.session.execute(cql))


class DataStax(Driver):
    name = "cassandra-driver"
    protocol = "cassandra"
    errors = (NoHostAvailable, ConnectionException, OperationTimedOut, Unavailable)
    reconnects = True

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        profile = ExecutionProfile(RoundRobinPolicy(), request_timeout=TIMEOUT)
        cluster = Cluster(
            ["localhost"],
            port=endpoint.port,
            ssl_context=endpoint.context(),
            ssl_options={"server_hostname": "localhost"} if endpoint.has_tls else None,
            connect_timeout=TIMEOUT,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            reconnection_policy=ConstantReconnectionPolicy(RECONNECTION_DELAY),
        )
        try:
            yield DataStaxSession(cluster.connect())
        finally:
            cluster.shutdown()

"""Redis, as Teleport carries it."""

import shlex

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import files_of, host_of
from dbproxy.protocols.wire.redis import RedisWire
from dbproxy.settings import Mode

__all__ = ["Redis"]


class Redis(ClientFirst):
    """Redis, and what speaks its protocol."""

    name = "redis"
    readable_name = "Redis"
    alpn = ("teleport-redis-ping", "teleport-redis")
    default_port = 6379
    wire = RedisWire()

    def connect_command(self, facts: ConnectionFacts) -> str:
        if facts.socket is not None:
            return shlex.join(["redis-cli", "-s", str(facts.socket)])
        words = ["redis-cli", "-h", host_of(facts), "-p", str(facts.port)]
        if facts.mode is not Mode.TUNNEL:
            files = files_of(facts, ca="--cacert", certificate="--cert", key="--key")
            words += ["--tls", *(word for option in files for word in option)]
        return shlex.join(words)

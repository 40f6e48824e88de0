"""Redis, as Teleport carries it."""

from collections.abc import Mapping
from urllib.parse import quote

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, host_of
from dbproxy.protocols.uris import URI, database_uri
from dbproxy.protocols.wire.redis import RedisWire

__all__ = ["Redis"]


class Redis(ClientFirst):
    """Redis, and what speaks its protocol."""

    name = "redis"
    readable_name = "Redis"
    alpn = ("teleport-redis-ping", "teleport-redis")
    default_port = 6379
    wire = RedisWire()

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        if facts.socket is not None:
            return ClientCommand(("redis-cli", "-s", str(facts.socket)))
        words = ["redis-cli", "-h", host_of(facts), "-p", str(facts.port)]
        if not facts.plain:
            files = files_of(facts, ca="--cacert", certificate="--cert", key="--key")
            words += ["--tls", *(word for option in files for word in option)]
        return ClientCommand(tuple(words))

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        return {"REDIS_URL": _url(facts)}

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        return {"redis": _url(facts)}


def _url(facts: ConnectionFacts) -> str:
    """As redis-py reads it. Without the user: a client sends it with a password, in `AUTH`."""
    if facts.socket is not None:
        return f"unix://{quote(str(facts.socket), errors='surrogateescape')}"
    if facts.plain:
        return database_uri("redis", facts, user="", path="")
    tls = dict(files_of(facts, ca="ssl_ca_certs", certificate="ssl_certfile", key="ssl_keyfile"))
    tls["ssl_check_hostname"] = "true"
    return database_uri("rediss", facts, tls, user="", path="")

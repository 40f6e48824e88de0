"""Redis' program and its Python driver."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from drivers.base import (
    TIMEOUT,
    Driver,
    Endpoint,
    ProgramFailed,
    Session,
    first_version,
    run_program,
)

GREETING = "greeting:1"
LARGE = "large_lines"
RETRIES = 3


@dataclass(frozen=True)
class RedisCliSession(Session):
    words: Sequence[str]

    def greeting(self) -> str:
        return self.ask("GET", GREETING)

    def large(self) -> str:
        return self.ask("LRANGE", LARGE, "0", "-1")

    def ask(self, *command: str) -> str:
        return run_program([*self.words, "-e", *command]).removesuffix("\n")


class RedisCli(Driver):
    """The program, as the start message has its line; `-e` makes errors a status."""

    name = "redis-cli"
    protocol = "redis"
    errors = (ProgramFailed,)
    is_program = True

    @cached_property
    def version(self) -> str:
        return first_version(run_program(["redis-cli", "--version"]))

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        words = shlex.split(endpoint.command)
        for option, file in (("--cert", endpoint.certificate_file), ("--key", endpoint.key_file)):
            if option in words:
                at = words.index(option)
                words[at : at + 2] = [] if file is None else [option, str(file)]
        session = RedisCliSession(words)
        session.ask("PING")
        yield session


@dataclass(frozen=True)
class RedisPySession(Session):
    client: "redis.Redis"

    def greeting(self) -> str:
        return str(self.client.get(GREETING))

    def large(self) -> str:
        lines: Any = self.client.lrange(LARGE, 0, -1)
        return "\n".join(lines)


class RedisPy(Driver):
    name = "redis-py"
    protocol = "redis"
    errors = (redis.RedisError,)
    reconnects = True

    @cached_property
    def version(self) -> str:
        return version("redis")

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        files: dict[str, Any] = {}
        if endpoint.has_tls:
            files = {"ssl": True, "ssl_ca_certs": str(endpoint.ca_file)}
        if endpoint.certificate_file is not None:
            files["ssl_certfile"] = str(endpoint.certificate_file)
            files["ssl_keyfile"] = str(endpoint.key_file)
        client = redis.Redis(
            host="localhost",
            port=endpoint.port,
            socket_timeout=TIMEOUT,
            decode_responses=True,
            retry=Retry(ConstantBackoff(0.05), RETRIES),
            **files,
        )
        with closing(client):
            client.ping()
            yield RedisPySession(client)

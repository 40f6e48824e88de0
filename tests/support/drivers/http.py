"""An HTTP client, against a stand-in for a search engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from drivers.base import TIMEOUT, Driver, Endpoint, Session


class Answered(Exception):
    """The answer was an error; the text is its body."""


@dataclass(frozen=True)
class HttpxSession(Session):
    client: httpx.Client

    def greeting(self) -> str:
        return self.ask("/greetings/1")

    def large(self) -> str:
        return self.ask("/large_lines")

    def ask(self, path: str) -> str:
        response = self.client.get(path)
        if response.is_error:
            raise Answered(response.text)
        return str(response.json()["words"])


class Httpx(Driver):
    name = "httpx"
    protocol = "elasticsearch"
    errors = (Answered, httpx.TransportError)
    reconnects = True

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        context = endpoint.context()
        url = f"{'http' if context is None else 'https'}://localhost:{endpoint.port}"
        with httpx.Client(
            base_url=url, verify=context or True, trust_env=False, timeout=TIMEOUT
        ) as client:
            session = HttpxSession(client)
            session.ask("/")
            yield session

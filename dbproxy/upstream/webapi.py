"""`GET /webapi/find`: what a Teleport Proxy says about itself to everybody, as values.

Bytes in, values out. What we use must be of the right type; everything else may be there, may be
missing and may look as it likes, because nine major versions answer. The answer is not a secret and
needs no authentication, but it decides where we connect to: it must come over TLS that was verified
as for a database connection.

The rules for addresses are those of tsh (lib/client/api.go, `applyProxySettings`) and of the web
client in its newest form (api/client/webclient/webclient.go). They differ in two cases:

- `ssh.public_addr` without a port: tsh takes 3080, the web client the port of `web_listen_addr`, or
  else 443. Here as in the web client: the port that is listened on is a fact, 3080 only a guess.
- No `ssh.public_addr`: the web client takes `web_listen_addr`, tsh stays with the address that it
  has. Here as in tsh: that address has just answered, while the other one is where the server
  listens as it sees itself, `0.0.0.0` as a rule.

Tested in `tests/unit/upstream/test_webapi.py`, with answers of several versions and with any JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from dbproxy.upstream.address import AddressError, ProxyAddress, parse_published

__all__ = [
    "FIND_PATH",
    "MAXIMUM_ANSWER",
    "AnswerError",
    "ClusterFacts",
    "FetchedAnswer",
    "database_address",
    "parse_find",
    "web_address",
]

FIND_PATH: Final = "/webapi/find"
MAXIMUM_ANSWER: Final = 1024 * 1024
"""Bytes: hundreds of times what a Teleport Proxy sends, and parsed within a few milliseconds."""
_SHOWN: Final = 200
"""Characters of somebody else's text that a message may carry."""

_MAXIMUM_TEXT: Final = 1024
"""Characters: four times what a DNS name can have."""
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_WEB_PORT: Final = 443


class AnswerError(Exception):
    """The answer is not that of a Teleport Proxy; `str()` of it says why, beginning with a verb."""


@dataclass(frozen=True, slots=True)
class FetchedAnswer:
    """An HTTP response.

    Attributes:
        status: Such as 200.
        headers: By their names in lower case; of repeated ones, any.
        body: Without any transfer or content encoding; a reader may stop behind `MAXIMUM_ANSWER`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What a Teleport Proxy says about itself.

    Attributes:
        cluster_name: The name of the cluster.
        server_version: Such as `18.1.0`.
        min_client_version: The oldest client that it serves.
        tls_routing_enabled: Whether database connections share the web port; None when nothing is
            said about it.
        web_public_addr: `ssh.public_addr`, a historic name for the public address of the web, as it
            was published.
        web_listen_addr: Where the web server listens, from its own point of view.
        database_public_addrs: By database protocol; where TLS routing is off.
        database_listen_addrs: Likewise, from the server's own point of view.
    """

    cluster_name: str | None = None
    server_version: str | None = None
    min_client_version: str | None = None
    tls_routing_enabled: bool | None = None
    web_public_addr: str | None = None
    web_listen_addr: str | None = None
    database_public_addrs: Mapping[str, str]
    database_listen_addrs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Listener:
    """How a database protocol appears in the answer, and which ports stand for missing ones.

    Attributes:
        key: The first word of the fields in `proxy.db`.
        public_port: Of a public address without a port; None for that of the web.
        listen_port: Of a listening address without a port.
        is_on_web_port: Whether the web port serves it when no address is published.
    """

    key: str
    public_port: int | None
    listen_port: int
    is_on_web_port: bool = False


_LISTENERS: Final[Mapping[str, _Listener]] = {
    "postgres": _Listener("postgres", None, 5432, is_on_web_port=True),
    "mysql": _Listener("mysql", 3036, 3036),
    "mongodb": _Listener("mongo", None, 27017),
}
"""By the protocol's name in certificates (Teleport, lib/client/api.go and lib/defaults)."""


def parse_find(answer: FetchedAnswer) -> ClusterFacts:
    """Understand the answer to `GET /webapi/find`.

    Raises:
        AnswerError: It is not that of a Teleport Proxy, or what we need of it cannot be understood.
    """
    if len(answer.body) > MAXIMUM_ANSWER:
        raise AnswerError(f"answered with more than {MAXIMUM_ANSWER} bytes")
    document = _json(answer)
    if answer.status != _OK:
        raise AnswerError(f"answered with {_status(answer)}{_told(document)}")
    if not isinstance(document, dict):
        raise AnswerError(f"answered with {_look(answer)}")
    if not isinstance(document.get("proxy"), dict):
        raise AnswerError("answered with JSON that is not a Teleport Proxy's")
    return _facts(_Fields(document))


def _facts(root: "_Fields") -> ClusterFacts:
    proxy = root.fields("proxy")
    ssh, db = proxy.fields("ssh"), proxy.fields("db")
    return ClusterFacts(
        cluster_name=root.text("cluster_name"),
        server_version=root.text("server_version"),
        min_client_version=root.text("min_client_version"),
        tls_routing_enabled=proxy.truth("tls_routing_enabled"),
        web_public_addr=ssh.text("public_addr"),
        web_listen_addr=ssh.text("web_listen_addr"),
        database_public_addrs=_by_protocol(db, "public_addr"),
        database_listen_addrs=_by_protocol(db, "listen_addr"),
    )


def _by_protocol(db: "_Fields", kind: str) -> dict[str, str]:
    texts = {name: db.text(f"{listener.key}_{kind}") for name, listener in _LISTENERS.items()}
    return {name: text for name, text in texts.items() if text is not None}


def web_address(facts: ClusterFacts, answered: ProxyAddress) -> ProxyAddress:
    """Where the cluster wants to be reached: its public web address, or else the one that answered.

    Args:
        facts: From there.
        answered: The address that gave them.

    Raises:
        AnswerError: What is published is no address.
    """
    if facts.web_public_addr is None:
        return answered
    default_port = _WEB_PORT
    if facts.web_listen_addr is not None:
        default_port = _listen_port(facts.web_listen_addr, "proxy.ssh.web_listen_addr", _WEB_PORT)
    address = _published(facts.web_public_addr, "proxy.ssh.public_addr", default_port)
    return answered if _is_unspecified(address.host) else address


def database_address(
    facts: ClusterFacts, protocol: str, answered: ProxyAddress
) -> ProxyAddress | None:
    """Where the database protocol is served when TLS routing is off, as tsh finds it.

    A public address counts as it is; of a listening address only the port does, at the host of the
    web address. PostgreSQL without either is served on the web port, told apart by its first bytes.

    Args:
        facts: From there.
        protocol: The database protocol's name.
        answered: The address that gave the facts.

    Returns:
        None when the cluster does not serve the protocol without TLS routing.

    Raises:
        AnswerError: What is published is no address.
    """
    listener = _LISTENERS.get(protocol)
    if listener is None:
        return None
    web = web_address(facts, answered)
    field = f"proxy.db.{listener.key}"
    if (public := facts.database_public_addrs.get(protocol)) is not None:
        return _published(public, f"{field}_public_addr", listener.public_port or web.port)
    if (listen := facts.database_listen_addrs.get(protocol)) is not None:
        port = _listen_port(listen, f"{field}_listen_addr", listener.listen_port)
        return ProxyAddress(web.host, port)
    return web if listener.is_on_web_port else None


def _published(text: str, field: str, default_port: int) -> ProxyAddress:
    try:
        return parse_published(text, default_port=default_port)
    except AddressError as error:
        raise AnswerError(f"publishes {field} as {_short(text)}: {error}") from error


def _listen_port(text: str, field: str, default_port: int) -> int:
    """The port of a listening address, which may have no host: `:3080`."""
    bare = f"localhost{text}" if text.startswith(":") else text
    return _published(bare, field, default_port).port


def _is_unspecified(host: str) -> bool:
    """Whether it means every address of the server itself, and so none to connect to."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


class _Fields:
    """A JSON object, read strictly where it is read; `null` counts as missing, as in Go."""

    def __init__(self, values: dict[str, Any], place: str = "") -> None:
        self._values = values
        self._place = place

    def text(self, name: str) -> str | None:
        """A text, or None when it is missing or empty."""
        value = self._values.get(name)
        if value is not None and not (isinstance(value, str) and _is_shown(value)):
            raise self._wrong(name, "a printable text of reasonable length")
        return value or None

    def truth(self, name: str) -> bool | None:
        """A truth, or None when it is missing."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def fields(self, name: str) -> "_Fields":
        """An object; a missing one is empty."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return _Fields(value or {}, f"{self._place}{name}.")

    def _wrong(self, name: str, expected: str) -> AnswerError:
        return AnswerError(f"answered with a {self._place}{name} that is not {expected}")


def _json(answer: FetchedAnswer) -> object:
    """The body as JSON, or None."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):  # not JSON, not text, or nested beyond all measure
        return None


def _told(document: object) -> str:
    """The reason in Teleport's form of an error: `{"error": {"message": …}}`."""
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f": {_short(message)}" if isinstance(message, str) and message else ""


def _status(answer: FetchedAnswer) -> str:
    target = answer.headers.get("location", "") if answer.status in _REDIRECTS else ""
    return f"HTTP status {answer.status}" + (f", a redirect to {_short(target)}" if target else "")


def _look(answer: FetchedAnswer) -> str:
    """What the body looks like, in words."""
    if not answer.body.strip():
        return "an empty page"
    if answer.body.lstrip()[:1] == b"<" or "html" in answer.headers.get("content-type", ""):
        return "a web page, as no Teleport Proxy does"
    return "something that is not Teleport's JSON"


def _is_shown(text: str) -> bool:
    """Whether logs and terminals can take it: it may come from anybody if nothing is verified."""
    return len(text) <= _MAXIMUM_TEXT and text.isprintable()


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")

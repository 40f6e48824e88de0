"""What the Proxy's web API says: ``GET /webapi/ping`` and ``GET /webapi/find``.

Source: api/client/webclient/webclient.go of Teleport.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum, unique
from http import HTTPStatus
from typing import Final

PING_PATH: Final = "/webapi/ping"
FIND_PATH: Final = "/webapi/find"
JSON_TYPE: Final = b"application/json"
HTML_TYPE: Final = b"text/html; charset=utf-8"
HTML_PAGE: Final = b"<!DOCTYPE html>\n<title>Sign in</title>\n<p>Please sign in to go on.</p>\n"


@unique
class Broken(StrEnum):
    """Ways in which the web API does not answer as it should."""

    NOT_FOUND = "not found"
    """404, as from a server that is no Teleport Proxy."""
    SERVER_ERROR = "server error"
    """500, with the error message in JSON."""
    INVALID_JSON = "invalid json"
    """200, and JSON that ends in the middle."""
    WRONG_TYPES = "wrong types"
    """200, and JSON in which every field is a list."""
    HTML = "html"
    """200, and a web page, as from a login page in front of everything."""
    ENDLESS = "endless"
    """200, and a body without an end."""


@dataclass(frozen=True, kw_only=True)
class WebOptions:
    """What the Proxy says about itself.

    Attributes:
        public_addr: ``proxy.ssh.public_addr``, the web address; ``None`` says the address that the
            Proxy listens on, an empty text leaves the field out.
        web_listen_addr: ``proxy.ssh.web_listen_addr``; ``None`` and empty as before.
        tls_routing: ``proxy.tls_routing_enabled``; without it, the Proxy's port serves PostgreSQL
            without TLS around it, too.
        server_version: ``server_version``.
        min_client_version: ``min_client_version``.
        databases: fields of ``proxy.db``, such as ``postgres_public_addr``.
        clock_skew: how far the ``Date`` header is ahead of the time.
        broken: how the answer is broken instead; ``None`` for a good one.
    """

    public_addr: str | None = None
    web_listen_addr: str | None = None
    tls_routing: bool = True
    server_version: str = "17.2.0"
    min_client_version: str = "16.0.0"
    databases: Mapping[str, str] = field(default_factory=dict)
    clock_skew: timedelta = timedelta()
    broken: Broken | None = None


@dataclass(frozen=True)
class Answer:
    """An answer of the web API.

    Attributes:
        status: HTTP status.
        body: the whole body, or what an endless one repeats.
        content_type: MIME type.
        endless: whether the body never ends.
    """

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    endless: bool = False


def find(options: WebOptions, *, cluster: str, address: str) -> Answer:
    """Answers ``/webapi/find``.

    Args:
        options: what to say.
        cluster: the cluster's name.
        address: where the Proxy listens.
    """
    return _answer(options, _facts(options, cluster, address))


def ping(options: WebOptions, *, cluster: str, address: str) -> Answer:
    """Answers ``/webapi/ping``: as ``find``, and how users log in."""
    auth = {"type": "local", "second_factor": "otp", "allow_passwordless": False}
    return _answer(options, {"auth": auth, **_facts(options, cluster, address)})


def date_header(options: WebOptions) -> bytes:
    """Returns the value of the ``Date`` header of an answer that is sent now."""
    return format_datetime(datetime.now(UTC) + options.clock_skew, usegmt=True).encode()


def _facts(options: WebOptions, cluster: str, address: str) -> dict[str, object]:
    ssh = {
        "listen_addr": "0.0.0.0:3023",
        "tunnel_listen_addr": "0.0.0.0:3024",
        "web_listen_addr": _or_default(options.web_listen_addr, address),
        "public_addr": _or_default(options.public_addr, address),
        "dial_timeout": 30_000_000_000,
    }
    return {
        "proxy": {
            "kube": {"enabled": False},
            "ssh": {name: value for name, value in ssh.items() if value},
            "db": dict(options.databases),
            "tls_routing_enabled": options.tls_routing,
        },
        "server_version": options.server_version,
        "min_client_version": options.min_client_version,
        "cluster_name": cluster,
        "edition": "oss",
        "fips": False,
        "automatic_upgrades": False,
    }


def _or_default(value: str | None, default: str) -> str:
    return default if value is None else value


def _answer(options: WebOptions, facts: dict[str, object]) -> Answer:
    body = json.dumps(facts).encode()
    match options.broken:
        case Broken.NOT_FOUND:
            return Answer(HTTPStatus.NOT_FOUND, b"404 page not found\n", b"text/plain")
        case Broken.SERVER_ERROR:
            error = json.dumps({"error": {"message": "the lab was asked to fail"}}).encode()
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, error)
        case Broken.INVALID_JSON:
            return Answer(HTTPStatus.OK, body[: len(body) // 2])
        case Broken.WRONG_TYPES:
            return Answer(HTTPStatus.OK, json.dumps({name: [1] for name in facts}).encode())
        case Broken.HTML:
            return Answer(HTTPStatus.OK, HTML_PAGE, HTML_TYPE)
        case Broken.ENDLESS:
            return Answer(HTTPStatus.OK, b" " * 16384, endless=True)
        case None:
            return Answer(HTTPStatus.OK, body)

"""The web API of the lab's Proxy, asked over TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import trio
from lab_client import Client, at_end
from upgraded_client import Response, ask

from dbproxy.lab import Broken, Lab, WebOptions, open_lab

ALPNS = [(), ("http/1.1",)]


@asynccontextmanager
async def open_client(directory: Path, web: WebOptions | None = None) -> AsyncIterator[Client]:
    async with open_lab(databases=[], directory=directory / "lab", web=web) as lab:
        yield Client(lab, directory)


async def get(client: Client, target: str, alpn: tuple[str, ...] = ()) -> Response:
    async with client.connect(alpn=alpn) as stream:
        return await ask(stream, target)


@pytest.mark.parametrize("alpn", ALPNS)
async def test_find_names_the_proxy_and_the_cluster(tmp_path: Path, alpn: tuple[str, ...]) -> None:
    async with open_client(tmp_path) as client:
        answer = await get(client, "/webapi/find?group=x", alpn)
        assert client.lab.web_requests == type(client.lab.web_requests)(["/webapi/find?group=x"])
        facts = json.loads(answer.body)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert facts["cluster_name"] == "lab.example.com"
        assert facts["server_version"] == "17.2.0"
        assert facts["min_client_version"] == "16.0.0"
        assert facts["proxy"]["tls_routing_enabled"] is True
        assert facts["proxy"]["ssh"]["public_addr"] == client.lab.address
        assert facts["proxy"]["ssh"]["web_listen_addr"] == client.lab.address
        assert "auth" not in facts


async def test_ping_says_how_users_log_in_and_takes_a_connector(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        for target in ("/webapi/ping", "/webapi/ping/local"):
            assert json.loads((await get(client, target)).body)["auth"]["type"] == "local"


async def test_what_it_says_can_be_chosen_and_changed(tmp_path: Path) -> None:
    web = WebOptions(
        public_addr="teleport.example.com:443",
        web_listen_addr="",
        tls_routing=False,
        server_version="9.3.0",
        databases={"postgres_public_addr": "db.example.com:5432"},
    )
    async with open_client(tmp_path, web) as client:
        facts = json.loads((await get(client, "/webapi/find")).body)
        assert facts["proxy"]["ssh"]["public_addr"] == "teleport.example.com:443"
        assert "web_listen_addr" not in facts["proxy"]["ssh"]
        assert facts["proxy"]["tls_routing_enabled"] is False
        assert facts["proxy"]["db"] == {"postgres_public_addr": "db.example.com:5432"}
        assert facts["server_version"] == "9.3.0"
        client.lab.web = WebOptions(server_version="18.0.0")
        assert json.loads((await get(client, "/webapi/find")).body)["server_version"] == "18.0.0"


@pytest.mark.parametrize("skew", [timedelta(), timedelta(hours=-2), timedelta(days=1)])
async def test_the_date_header_may_be_wrong(tmp_path: Path, skew: timedelta) -> None:
    async with open_client(tmp_path, WebOptions(clock_skew=skew)) as client:
        date = parsedate_to_datetime((await get(client, "/webapi/find")).headers["date"])
        assert abs(date - datetime.now(UTC) - skew) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("broken", "status", "start"),
    [
        (Broken.NOT_FOUND, 404, b"404 page"),
        (Broken.SERVER_ERROR, 500, b'{"error": {"message": '),
        (Broken.INVALID_JSON, 200, b'{"proxy": '),
        (Broken.WRONG_TYPES, 200, b'{"proxy": [1]'),
        (Broken.HTML, 200, b"<!DOCTYPE html>"),
    ],
)
async def test_the_answer_may_be_broken(
    tmp_path: Path, broken: Broken, status: int, start: bytes
) -> None:
    async with open_client(tmp_path, WebOptions(broken=broken)) as client:
        answer = await get(client, "/webapi/find")
        assert answer.status == status
        assert answer.body.startswith(start)
        if broken is Broken.INVALID_JSON:
            with pytest.raises(json.JSONDecodeError):
                json.loads(answer.body)


async def test_the_answer_may_never_end(tmp_path: Path) -> None:
    async with (
        open_client(tmp_path, WebOptions(broken=Broken.ENDLESS)) as client,
        client.connect(alpn=()) as stream,
    ):
        await stream.send_all(b"GET /webapi/find HTTP/1.1\r\nHost: localhost\r\n\r\n")
        size = 0
        while size < 1 << 20:
            data = await stream.receive_some(65536)
            assert data
            size += len(data)


async def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, client.connect(alpn=()) as stream:
        assert (await ask(stream, "/webapi/find")).status == 200
        assert (await ask(stream, "/web/login")).status == 404
        assert (await ask(stream, "/webapi/ping")).status == 200


async def test_what_is_not_http_is_refused(lab_without_databases: Lab, tmp_path: Path) -> None:
    async with Client(lab_without_databases, tmp_path).connect(alpn=()) as stream:
        await stream.send_all(b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n")
        assert (await stream.receive_some(12)) == b"HTTP/1.1 400"
        while await stream.receive_some(4096):
            pass
        assert await at_end(stream)


@pytest.fixture
async def lab_without_databases(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(databases=[], directory=tmp_path / "lab") as lab:
        yield lab


async def test_a_client_that_leaves_in_the_middle_of_an_answer_harms_nobody(
    tmp_path: Path,
) -> None:
    async with open_client(tmp_path, WebOptions(broken=Broken.ENDLESS)) as client:
        async with client.connect(alpn=()) as stream:
            await stream.send_all(b"GET /webapi/find HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive_some(100)
        with trio.fail_after(5):
            while client.lab.connections:  # noqa: ASYNC110 - the lab's own count
                await trio.sleep(0.005)

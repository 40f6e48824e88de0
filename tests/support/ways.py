"""The ways from dbproxy to a lab's Proxy: directly, by an upgrade, through an outbound proxy."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbproxy.lab import (
    BalancerOptions,
    Credentials,
    DatabaseResource,
    Lab,
    OutboundOptions,
    UnknownALPN,
    UpgradeOptions,
    Variant,
    WebOptions,
    guide,
    open_balancer,
    open_connect_proxy,
    open_lab,
    open_socks_proxy,
)
from dbproxy.lab.outbound import OutboundRequest
from dbproxy.lab.postgres import EmbeddedPostgres

NAME = "teleport.example.com"
"""What the Proxy or its balancer is called where an outbound proxy leads to it: loopback addresses
are never proxied (golang.org/x/net/http/httpproxy)."""
NAMED = f"{NAME}:443"
CREDENTIALS = Credentials("alice", "p@ss:w/rd")


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        name: For people.
        upgrade: `websocket` or `alpn`, the legacy one, when a balancer stands in front.
        outbound: `connect` or `socks5`, when an outbound proxy is on the way.
    """

    name: str
    upgrade: str | None = None
    outbound: str | None = None


WAYS = (
    Way("direct"),
    Way("upgrade-websocket", upgrade="websocket"),
    Way("upgrade-legacy", upgrade="alpn"),
    Way("connect", outbound="connect"),
    Way("socks5", outbound="socks5"),
    Way("connect-and-upgrade", upgrade="websocket", outbound="connect"),
)
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@asynccontextmanager
async def named_lab(
    directory: Path, postgres: EmbeddedPostgres | None = None, **options: Any
) -> AsyncIterator[Lab]:
    """A cluster whose Proxy is called `NAME` besides its address, with the guide's database."""
    address = postgres.address if postgres is not None else "127.0.0.1:1"
    database = DatabaseResource(guide.SERVICE, address, labels={"env": "dev"})
    async with open_lab(
        databases=[database],
        directory=directory / "lab",
        variant=Variant(names=[NAME]),
        **options,
    ) as lab:
        lab.create_role(guide.role_yaml())
        yield lab


def no_outbound_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the environment says about outbound proxies."""
    for variable in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


@asynccontextmanager
async def open_way(
    way: Way, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[dict[str, Any]]:
    """Put up what is on the way, lead dbproxy there, and see that nothing went another way.

    The lab's certificates must have `NAME`. Yields the settings that say where to go; discovery,
    the upgrade test and everything else are left to dbproxy.
    """
    no_outbound_proxy(monkeypatch)
    async with AsyncExitStack() as stack:
        address = lab.address
        records: deque[OutboundRequest] = deque()
        if way.upgrade is not None:
            lab.upgrade = UpgradeOptions(websocket=way.upgrade == "websocket")
            unknown = UnknownALPN.IGNORE if way.upgrade == "websocket" else UnknownALPN.ALERT
            balancer = await stack.enter_async_context(
                open_balancer(lab, BalancerOptions(unknown_alpn=unknown, names=[NAME]))
            )
            address = balancer.address
        if way.outbound is not None:
            options = OutboundOptions(credentials=CREDENTIALS, routes={NAMED: address})
            opened = open_connect_proxy if way.outbound == "connect" else open_socks_proxy
            proxy = await stack.enter_async_context(opened(options))
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            address, records = NAMED, proxy.requests
        lab.web = WebOptions(public_addr=address)
        yield {"proxy": address, "no_discovery": False}
        assert bool(lab.upgrades) == (way.upgrade is not None)
        assert {upgrade.mode for upgrade in lab.upgrades} <= {way.upgrade}
        assert all(upgrade.zero_keys_only and not upgrade.violations for upgrade in lab.upgrades)
        if way.outbound is not None:
            assert {request.target for request in records} == {NAMED}
            assert {request.credentials for request in records} == {CREDENTIALS}

"""An upstream that is being restarted, and one that stops taking a certificate: clients wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from data_client import data_connection, take_first_message
from lab_client import startup, until
from loopback import free_port
from odd_pieces import Stream
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    running_proxy,
)
from ways import NAME, Way, every_way, open_way

from dbproxy import Code, Mode
from dbproxy.events import IdentityLoaded, UpstreamRetried
from dbproxy.lab import (
    BalancerOptions,
    DatabaseResource,
    Lab,
    UnknownALPN,
    Variant,
    guide,
    open_balancer,
    open_lab,
)
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey

INTERVAL = 0.02
"""Seconds between two new connections: 50 a second."""
DOWN = 3.0
AT_ONCE = 20
RENEWALS = 4


@dataclass
class Clients:
    """Clients that come one after another, and what they were told.

    Attributes:
        proxy: Where they connect.
        served: How many got to PostgreSQL's ReadyForQuery.
        refused: What the others were told, and how many seconds later.
        busy: How many are under way.
        come_so_far: How many `come_and_count` has let in.
    """

    proxy: RunningProxy
    served: int = 0
    refused: list[tuple[bytes, float]] = field(default_factory=list)
    busy: int = 0
    come_so_far: int = 0

    async def come_for(self, seconds: float) -> None:
        """50 new clients a second, also on a busy machine; returns when all of them are gone."""
        due = trio.current_time()
        end = due + seconds
        async with trio.open_nursery() as nursery:
            while due < end:
                nursery.start_soon(self.come)
                due += INTERVAL
                await trio.sleep_until(due)

    def come_and_count(self, nursery: trio.Nursery) -> int:
        """One more client; returns how many have come up to now."""
        nursery.start_soon(self.come)
        self.come_so_far += 1
        return self.come_so_far

    async def come(self) -> None:
        self.busy += 1
        began = trio.current_time()
        try:
            async with await self.proxy.connect() as stream:
                await stream.send_all(startup(user="alice", database="example"))
                answer = b""
                while not answer.endswith(b"I") and (data := await stream.receive_some()):
                    answer += data
        finally:
            self.busy -= 1
        if answer.startswith(b"R"):
            self.served += 1
        else:
            self.refused.append((answer, trio.current_time() - began))


async def test_no_client_notices_a_restart_of_three_seconds(proxy_in: ProxyIn, lab: Lab) -> None:
    async with proxy_in(Mode.TUNNEL, connect_grace=5.0) as proxy:
        clients = Clients(proxy)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clients.come_for, DOWN + 0.6)
                await until(lambda: clients.served >= 5, PATIENCE)
                await until(lambda: not clients.busy, PATIENCE)  # who is being served is cut off
                await lab.stop_proxy()
                await trio.sleep(DOWN)
                await lab.start_proxy()
        records = await proxy.all_closed(clients.served)
    assert clients.refused == []
    assert clients.served > 40 * DOWN
    assert max(record.attempts for record in records) > 1, "nobody came while it was down"


async def test_who_was_not_answered_yet_does_not_notice_a_restart_at_a_busy_moment(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    """Whom the upstream has answered is cut off; everybody else gets to another one."""
    async with proxy_in(Mode.TUNNEL, connect_grace=5.0) as proxy:
        clients = Clients(proxy)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await until(lambda: clients.come_and_count(nursery) >= 40, PATIENCE)
                await lab.stop_proxy()
                assert clients.busy, "the moment was not busy"
                await trio.sleep(0.5)
                await lab.start_proxy()
        records = await proxy.all_closed(40)
    assert clients.refused == []
    assert {record.code for record in records} <= {None, Code.UPSTREAM_LOST}
    assert max(record.attempts for record in records) > 1


async def test_an_outage_that_lasts_is_named_to_each_client_within_the_grace(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    grace = 0.5
    async with proxy_in(Mode.TUNNEL, connect_grace=grace) as proxy:
        await lab.stop_proxy()
        clients = Clients(proxy)
        with trio.fail_after(PATIENCE):
            await clients.come_for(2.5)
    assert clients.served == 0
    assert len(clients.refused) > 50
    for answer, seconds in clients.refused:
        assert b"connection refused, nothing listens there [upstream-unreachable]" in answer
        assert grace <= seconds < grace + 1.0


@asynccontextmanager
async def greeting_lab(directory: Path, **options: Any) -> AsyncIterator[Lab]:
    """A cluster whose Proxy greets every database connection, and has no database behind it."""

    async def greet(stream: Stream, _facts: Handshake) -> None:
        await take_first_message(stream)
        await stream.send_all(b"welcome")
        while await stream.receive_some():
            pass

    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(databases=[database], directory=directory, handler=greet, **options) as lab:
        lab.create_role(guide.role_yaml())
        yield lab


@every_way
async def test_on_no_way_does_a_client_notice_a_restart(
    way: Way,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Balancers and outbound proxies stay, and answer in their own words meanwhile."""
    answers: list[bytes] = []

    async def come() -> None:
        async with data_connection(proxy) as stream:
            answers.append(bytes(await stream.receive_some()))

    async with greeting_lab(tmp_path / "lab", variant=Variant(names=[NAME])) as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            open_way(way, lab, monkeypatch) as settings,
            running_proxy(
                Mode.TUNNEL, lab, destination.directory, connect_grace=PATIENCE, **settings
            ) as proxy,
        ):
            with trio.fail_after(PATIENCE):
                await come()
                await lab.stop_proxy()
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(come)
                    await until(lambda: len(proxy.of(UpstreamRetried)) >= 15, PATIENCE)
                    await lab.start_proxy()
    assert answers == [b"welcome"] * 11


@pytest.mark.parametrize("unknown_alpn", [UnknownALPN.IGNORE, UnknownALPN.ALERT])
async def test_a_balancer_that_is_away_is_recognised_when_it_is_back(
    unknown_alpn: UnknownALPN, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    """While it is away dbproxy has to guess that there is none.

    One that closes without a word is never recognised: a Teleport Proxy does that, too.
    """
    options = BalancerOptions(listen=f"127.0.0.1:{free_port()}", unknown_alpn=unknown_alpn)
    answers: list[bytes] = []

    async def come() -> None:
        async with data_connection(proxy) as stream:
            answers.append(bytes(await stream.receive_some()))

    async with greeting_lab(tmp_path / "lab") as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        way = {"proxy": options.listen, "connect_grace": PATIENCE}
        async with running_proxy(Mode.TUNNEL, lab, destination.directory, **way) as proxy:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(come)
                    await until(lambda: len(proxy.of(UpstreamRetried)) >= 3, PATIENCE)
                    async with open_balancer(lab, options):
                        await has_come(answers, 3)
                        nursery.cancel_scope.cancel()
    assert answers == [b"welcome"] * 3


async def has_come(answers: list[bytes], count: int) -> None:
    await until(lambda: len(answers) >= count, PATIENCE)


@pytest.mark.parametrize(("mode", "count"), [(Mode.TUNNEL, 1000), (Mode.TERMINATE, 400)])
async def test_a_thousand_connections_do_not_notice_that_old_certificates_are_rejected(
    mode: Mode, count: int, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    """Again and again the certificate in use is rejected, and a moment later tbot renews.

    Clients keep a certificate of their own. In passthrough it is theirs that Teleport judges:
    dbproxy shows none.
    """
    left = iter(range(count))
    answers: list[bytes] = []

    async def come_and_come() -> None:
        for _ in left:
            async with data_connection(clients) as stream:
                answers.append(bytes(await stream.receive_some()))

    async with greeting_lab(tmp_path / "lab") as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        own = destination.copy_to(tmp_path / "client")
        async with running_proxy(mode, lab, destination.directory, connect_grace=5.0) as proxy:
            started = replace(proxy.started, certificate_file=own / "tlscert", key_file=own / "key")
            clients = RunningProxy(started, proxy.events)
            with trio.fail_after(2 * PATIENCE):
                async with trio.open_nursery() as nursery:
                    for _ in range(AT_ONCE):
                        nursery.start_soon(come_and_come)
                    for number in range(1, RENEWALS + 1):
                        await has_come(answers, number * count // (RENEWALS + 2))
                        lab.reject_certificates()
                        await trio.sleep(0.05)
                        await destination.renew()
            loaded = proxy.of(IdentityLoaded)
            attempts = [record.attempts for record in await proxy.all_closed(count)]
        rejected = [facts for facts in lab.handshakes if facts.error is not None]
    assert len(loaded) == 1 + RENEWALS
    assert answers == [b"welcome"] * count
    assert rejected, "no certificate was rejected"
    assert max(attempts) > 1


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_rejection_that_no_renewal_follows_is_named(
    renewed: bool, proxy_in: ProxyIn, lab: Lab, destination: Destination
) -> None:
    async with proxy_in(Mode.TUNNEL, connect_grace=0.5) as proxy:
        lab.reject_certificates()
        if renewed:
            await destination.renew()
        clients = Clients(proxy)
        await clients.come()
        record = await proxy.record()
    assert clients.served == (1 if renewed else 0)
    assert record.code is (None if renewed else Code.CERTIFICATE_REJECTED)

"""What the doctor sees on the way to a Teleport Proxy: the lab's, and what is none."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from loopback import no_descriptor_left
from other_servers import open_ssh_server
from running_proxy import Destination

from dbproxy.doctor import UPSTREAM, Finding, Verdict, look_upstream, outcomes_of
from dbproxy.errors import Code
from dbproxy.identity import DestinationSource
from dbproxy.lab import (
    Action,
    BalancerOptions,
    Credentials,
    DatabaseResource,
    Fault,
    FaultPlan,
    Lab,
    OutboundOptions,
    Step,
    Variant,
    WebOptions,
    guide,
    open_balancer,
    open_connect_proxy,
    open_lab,
)
from dbproxy.settings import Settings

NAMED = "teleport.example.com:443"
Look = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(autouse=True)
def _nothing_left() -> Any:
    with no_descriptor_left():
        yield


@asynccontextmanager
async def cluster_with(directory: Path, **options: Any) -> AsyncIterator[Lab]:
    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(databases=[database], directory=directory / "lab", **options) as lab:
        lab.create_role(guide.role_yaml())
        yield lab


@pytest.fixture
def look(tmp_path: Path, rsa_key: RSAPrivateKey) -> Look:
    """Look at a lab with what tbot has just written; what each check has found."""

    async def look(
        lab: Lab, environ: dict[str, str] | None = None, *, renew: bool = True, **changes: Any
    ) -> dict[str, Finding]:
        destination = Destination(tmp_path / "machine-id", lab, [rsa_key])
        if renew:
            await destination.renew()
        settings = Settings(
            **{
                "destination_dir": destination.directory,
                "proxy": lab.address,
                "proxy_ca": lab.web_ca_file,
                "connect_timeout": 2.0,
                "handshake_timeout": 2.0,
                **changes,
            }
        )
        identity = DestinationSource(destination.directory).read() if renew else None
        with trio.fail_after(20):
            seen = await look_upstream(settings, None, identity, environ or {})
        return {outcome.check.name: outcome.finding for outcome in outcomes_of(UPSTREAM, seen)}

    return look


def problems(found: dict[str, Finding]) -> dict[str, Code | None]:
    bad = (Verdict.FAILURE, Verdict.WARNING)
    return {name: finding.code for name, finding in found.items() if finding.verdict in bad}


async def test_a_good_way_is_told_step_by_step(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.web = WebOptions(public_addr=lab.address, server_version="18.1.0")
        found = await look(lab)
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert "127.0.0.1 leads to 127.0.0.1" in found["proxy-name"].message
    assert found["proxy-tcp"].message.startswith(f"connected to {lab.address} in ")
    assert "TLSv1.3" in found["proxy-certificate"].message
    assert f"trusted by the authority in {lab.web_ca_file}" in found["proxy-certificate"].message
    assert "Teleport 18.1.0 of lab.example.com" in found["proxy-answers"].message
    assert "no connection upgrade is needed" in found["connection-upgrade"].message
    assert (
        "teleport-postgres-ping over TLSv1.3, with pings" in found["certificate-accepted"].message
    )
    host, database = (
        tmp_path / "machine-id" / f"teleport-{ca}-ca.crt" for ca in ("host", "database")
    )
    assert found["client-authority"].message == (
        f"clients verify Teleport with sslrootcert={host}, and so does {database}"
    )


async def test_where_the_database_ca_is_another_one_only_the_host_ca_will_do(
    tmp_path: Path, look: Look
) -> None:
    async with cluster_with(tmp_path, split_database_ca=True) as lab:
        found = await look(lab)
    host = tmp_path / "machine-id" / "teleport-host-ca.crt"
    assert found["client-authority"].message == f"clients verify Teleport with sslrootcert={host}"


async def test_a_balancer_and_an_outbound_proxy_are_seen(tmp_path: Path, look: Look) -> None:
    names = ["teleport.example.com"]
    async with (
        cluster_with(tmp_path, variant=Variant(names=names)) as lab,
        open_balancer(lab, BalancerOptions(names=names)) as balancer,
        open_connect_proxy(
            OutboundOptions(
                credentials=Credentials("alice", "secret"), routes={NAMED: balancer.address}
            )
        ) as outbound,
    ):
        lab.web = WebOptions(public_addr=NAMED)
        found = await look(lab, {"HTTPS_PROXY": outbound.url}, proxy=NAMED)
    assert problems(found) == {}
    assert "which HTTPS_PROXY names" in found["outbound-proxy"].message
    assert "secret" not in str(found)
    assert found["connection-upgrade"].message.startswith("connections are upgraded: the server ")


@pytest.mark.parametrize("mode", [{}, {"tunnel": True}])
async def test_a_rejected_certificate_is_seen_although_the_handshake_is_fine(
    tmp_path: Path, look: Look, mode: dict[str, bool]
) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.reject_certificates(issued_before=datetime.max.replace(tzinfo=UTC))
        found = await look(lab, **mode)
    assert found["certificate-accepted"].code is Code.CERTIFICATE_REJECTED
    assert "certificate_expired" in found["certificate-accepted"].message


async def test_clients_that_are_locked_out_are_seen(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.admission.locked.add("bot-app")
        found = await look(lab, tunnel=True)
    assert found["certificate-accepted"].code is Code.UPSTREAM_CLOSED_EARLY


async def test_a_wrong_clock_is_told(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.web = WebOptions(clock_skew=timedelta(minutes=-5))
        found = await look(lab)
    assert found["proxy-clock"].code is Code.CLOCK_WRONG
    assert "5 minutes ahead of" in found["proxy-clock"].message


async def test_an_untrusted_certificate_is_told_once(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, proxy_ca=None)
    assert problems(found) == {"proxy-certificate": Code.UPSTREAM_UNTRUSTED}


async def test_an_ssh_server_is_called_one(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab, open_ssh_server() as port:
        found = await look(lab, proxy=f"127.0.0.1:{port}")
    assert problems(found) == {"proxy-certificate": Code.UPSTREAM_NOT_TELEPORT}
    assert "SSH server" in found["proxy-certificate"].message


async def test_nothing_at_the_address_is_told(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, proxy="127.0.0.1:1")
    assert problems(found) == {"proxy-tcp": Code.UPSTREAM_UNREACHABLE}
    assert "connection refused, nothing listens there" in found["proxy-tcp"].message


async def test_a_server_that_stalls_does_not_hold_the_doctor_up(tmp_path: Path, look: Look) -> None:
    plan = FaultPlan(Fault(Step.CLIENT_HELLO, Action.STALL))
    async with cluster_with(tmp_path, faults=plan) as lab:
        found = await look(lab, handshake_timeout=0.2)
    assert problems(found)["proxy-certificate"] is Code.UPSTREAM_UNREACHABLE


async def test_without_an_identity_the_rest_is_looked_at(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, renew=False)
    assert found["proxy-tcp"].verdict is Verdict.OK
    assert found["certificate-accepted"].verdict is Verdict.SKIPPED
    assert "identity" in found["certificate-accepted"].message


@pytest.mark.parametrize("proxy", [None, "https://user@teleport", "teleport:port"])
async def test_an_address_that_is_none_is_told(
    tmp_path: Path, look: Look, proxy: str | None
) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, proxy=proxy)
    assert problems(found) == {"proxy-address": Code.USAGE}

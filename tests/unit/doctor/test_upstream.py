"""What the doctor sees on the way to a Teleport Proxy: the lab's, and what is none."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from loopback import no_descriptor_left
from other_servers import open_ssh_server
from running_proxy import Destination

from dbproxy.doctor import (
    UPSTREAM,
    Finding,
    UpstreamEvidence,
    Verdict,
    look_upstream,
    outcomes_of,
)
from dbproxy.doctor.upstream_evidence import Session
from dbproxy.errors import Code, UpstreamError
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
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import acceptance

NAMED = "teleport.example.com:443"
Look = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture(autouse=True)
def _nothing_left() -> Any:
    with no_descriptor_left():
        yield


@pytest.fixture(autouse=True)
def _hurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is content is not waited for long, where no rejection is to come."""
    if "patient" not in request.fixturenames:
        monkeypatch.setattr(acceptance, "REJECTION_TIME", 0.05)


@pytest.fixture
def patient() -> None:
    """A rejection may take its time; it ends the wait."""


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
        return checked(seen)

    return look


@pytest.fixture
def seen() -> UpstreamEvidence:
    """What a look has seen that found nothing."""
    return UpstreamEvidence(identity=None, mode=Mode.PASSTHROUGH)


class NobodyKnows(trio.abc.HostnameResolver):
    """Knows no name."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class TwoAddresses(NobodyKnows):
    """Every name leads to the lab, and to an address at which nobody listens."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, int(port))) for address in ("127.0.0.1", "127.0.0.2")]


def checked(seen: UpstreamEvidence) -> dict[str, Finding]:
    return {outcome.check.name: outcome.finding for outcome in outcomes_of(UPSTREAM, seen)}


def pin(pem: str) -> str:
    key = load_pem_x509_certificate(pem.encode()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{sha256(der).hexdigest()}"


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
        f"clients verify Teleport with sslrootcert={host}; {database} would do as well"
    )


async def test_where_the_database_ca_is_another_one_only_the_host_ca_will_do(
    tmp_path: Path, look: Look
) -> None:
    async with cluster_with(tmp_path, split_database_ca=True) as lab:
        found = await look(lab)
    host = tmp_path / "machine-id" / "teleport-host-ca.crt"
    assert found["client-authority"].message == f"clients verify Teleport with sslrootcert={host}"


async def test_where_the_client_does_not_ask_for_tls_first_its_authority_is_not_looked_at(
    tmp_path: Path, look: Look
) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, protocol="redis")
    assert found["certificate-accepted"].verdict is Verdict.OK
    assert found["client-authority"].verdict is Verdict.SKIPPED
    assert "PostgreSQL and CockroachDB only" in found["client-authority"].message


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


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("mode", [{}, {"tunnel": True}])
async def test_a_rejected_certificate_is_seen_although_the_handshake_is_fine(
    tmp_path: Path, look: Look, mode: dict[str, bool]
) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.reject_certificates(issued_before=datetime.max.replace(tzinfo=UTC))
        found = await look(lab, **mode)
    assert found["certificate-accepted"].code is Code.CERTIFICATE_REJECTED
    assert "certificate_expired" in found["certificate-accepted"].message


@pytest.mark.usefixtures("patient")
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


async def test_a_web_server_that_never_answers_does_not_hold_the_doctor_up(
    tmp_path: Path, look: Look
) -> None:
    plan = FaultPlan(Fault(Step.HANDSHAKE, Action.STALL))
    async with cluster_with(tmp_path, faults=plan) as lab:
        found = await look(lab, connect_timeout=0.2, handshake_timeout=0.2)
    assert found["proxy-answers"].code is Code.DISCOVERY_FAILED
    assert "no answer" in found["proxy-answers"].message
    assert found["proxy-certificate"].verdict is Verdict.OK


@pytest.mark.parametrize("step", [Step.RECEIVED, Step.SENT], ids=["before-yes", "after-yes"])
async def test_a_client_handshake_that_stalls_is_called_slow_and_not_closed(
    tmp_path: Path, look: Look, step: Step
) -> None:
    plan = FaultPlan(Fault(step, Action.STALL, size=1))
    async with cluster_with(tmp_path, faults=plan) as lab:
        found = await look(lab, handshake_timeout=0.3)
    assert problems(found) == {"client-authority": Code.UPSTREAM_UNREACHABLE}
    assert "took longer than 0.3 s" in found["client-authority"].message


@pytest.mark.usefixtures("patient")
async def test_what_a_client_is_shown_is_told_although_its_certificate_is_rejected(
    tmp_path: Path, look: Look
) -> None:
    async with cluster_with(tmp_path) as lab:
        lab.reject_certificates(issued_before=datetime.max.replace(tzinfo=UTC))
        found = await look(lab)
    assert problems(found) == {"certificate-accepted": Code.CERTIFICATE_REJECTED}
    assert "sslrootcert=" in found["client-authority"].message


def test_a_certificate_that_only_clients_cannot_use_is_rejected(seen: UpstreamEvidence) -> None:
    seen.session = Session(alpn="", tls_version="TLSv1.3", upgraded=False, seconds=0.1)
    assert checked(seen)["certificate-accepted"].verdict is Verdict.OK
    seen.inner_rejection = UpstreamError(Code.CERTIFICATE_REJECTED, "it says no")
    assert checked(seen)["certificate-accepted"].message == "it says no"


async def test_without_an_identity_the_rest_is_looked_at(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, renew=False)
    skipped = {name for name, finding in found.items() if finding.verdict is Verdict.SKIPPED}
    assert (problems(found), skipped) == ({}, {"certificate-accepted", "client-authority"})
    assert "identity" in found["certificate-accepted"].message


async def test_without_an_identity_a_certificate_of_the_host_ca_is_in_doubt(
    tmp_path: Path, look: Look
) -> None:
    async with cluster_with(tmp_path, web_from_host_ca=True) as lab:
        found = await look(lab, renew=False, proxy_ca=None)
        trusted = await look(lab, proxy_ca=None)
    assert found["proxy-certificate"].verdict is Verdict.WARNING
    assert "Host CA could not be tried" in found["proxy-certificate"].message
    host_ca = tmp_path / "machine-id" / "teleport-host-ca.crt"
    assert f"trusted by the Host CA in {host_ca}" in trusted["proxy-certificate"].message


async def test_a_certificate_that_nobody_verifies_is_a_warning(tmp_path: Path, look: Look) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, insecure=True, proxy_ca=None)
    assert problems(found) == {"proxy-certificate": Code.UPSTREAM_UNTRUSTED}
    assert "is not verified: --insecure takes any" in found["proxy-certificate"].message
    assert "Take --insecure away" in str(found["proxy-certificate"].next_step)


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_pin_that_matches_is_told(tmp_path: Path, look: Look, insecure: bool) -> None:
    async with cluster_with(tmp_path) as lab:
        own = ssl.get_server_certificate
        shown = await trio.to_thread.run_sync(own, ("127.0.0.1", int(lab.address.split(":")[1])))
        found = await look(lab, proxy_pin=(pin(shown),), insecure=insecure)
        other = await look(lab, proxy_pin=("sha256:" + "0" * 64,), insecure=insecure)
    assert problems(found) == {}
    words = (
        "and nothing else: --insecure" if insecure else "and it has a key that --proxy-pin names"
    )
    assert words in found["proxy-certificate"].message
    assert other["proxy-certificate"].code is Code.UPSTREAM_PIN_MISMATCH


async def test_authorities_in_a_variable_are_told(
    tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster_with(tmp_path) as lab:
        environ = {"SSL_CERT_FILE": str(lab.web_ca_file)}
        monkeypatch.setenv("SSL_CERT_FILE", environ["SSL_CERT_FILE"])
        found = await look(lab, environ, proxy_ca=None)
    words = f"an authority in {lab.web_ca_file}, which SSL_CERT_FILE names"
    assert words in found["proxy-certificate"].message


async def test_who_has_decided_about_the_upgrade_is_told(tmp_path: Path, look: Look) -> None:
    variable = "TELEPORT_TLS_ROUTING_CONN_UPGRADE"
    async with cluster_with(tmp_path) as lab:
        by_setting = await look(lab, {variable: "yes"}, connection_upgrade="never")
        by_variable = await look(lab, {variable: "no"})
    assert by_setting["connection-upgrade"].message.endswith("as --connection-upgrade=never says")
    assert by_variable["connection-upgrade"].message.endswith(f"as {variable} says")


async def test_an_upgrade_test_without_a_result_is_a_warning(tmp_path: Path, look: Look) -> None:
    plan = FaultPlan(Fault(Step.CLIENT_HELLO, Action.RESET, alpn="teleport-reversetunnel"))
    async with cluster_with(tmp_path, faults=plan) as lab:
        found = await look(lab)
    assert problems(found) == {"connection-upgrade": Code.UPGRADE_FAILED}
    assert "only as a guess" in found["connection-upgrade"].message


async def test_a_name_that_cannot_be_resolved_is_told_once(tmp_path: Path, look: Look) -> None:
    trio.socket.set_custom_hostname_resolver(NobodyKnows())
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, proxy="teleport.example.com:443")
    assert problems(found) == {"proxy-name": Code.UPSTREAM_UNREACHABLE}


async def test_each_address_is_tried_and_those_that_fail_are_named(
    tmp_path: Path, look: Look
) -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    names = ["teleport.example.com"]
    async with cluster_with(tmp_path, variant=Variant(names=names)) as lab:
        port = lab.address.split(":")[1]
        found = await look(lab, proxy=f"{names[0]}:{port}", no_discovery=True)
    assert problems(found) == {"proxy-tcp": Code.UPSTREAM_UNREACHABLE}
    assert found["proxy-tcp"].verdict is Verdict.WARNING
    assert f"but not to 127.0.0.2:{port}" in found["proxy-tcp"].message


@pytest.mark.parametrize(
    "fault",
    [Fault(Step.HANDSHAKE, Action.STALL), Fault(Step.RECEIVED, Action.STALL, size=1)],
    ids=str,
)
async def test_the_doctor_can_be_interrupted(tmp_path: Path, look: Look, fault: Fault) -> None:
    async with cluster_with(tmp_path, faults=FaultPlan(fault)) as lab:
        with trio.move_on_after(0.3) as interrupt:
            await look(lab)
    assert interrupt.cancelled_caught  # and no descriptor is left


@pytest.mark.parametrize("proxy", [None, "https://user@teleport", "teleport:port"])
async def test_an_address_that_is_none_is_told(
    tmp_path: Path, look: Look, proxy: str | None
) -> None:
    async with cluster_with(tmp_path) as lab:
        found = await look(lab, proxy=proxy)
    assert problems(found) == {"proxy-address": Code.USAGE}

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_pem_private_key,
    load_ssh_public_identity,
)
from trio.testing import MockClock

from dbproxy.lab.authority import Authority
from dbproxy.lab.bots import Bots, JoinToken
from dbproxy.lab.destination_writer import BeforeWrite, write_file
from dbproxy.lab.errors import AccessDenied, JoinError, LabError
from dbproxy.lab.keys import PrivateKey, new_ecdsa_key, new_rsa_key
from dbproxy.lab.rotation import Phase
from dbproxy.lab.subject import SubjectFields, decode_subject
from dbproxy.lab.tbot import Layout, Tbot, load_tbot_config

KEYS = [new_ecdsa_key() for _ in range(8)]
SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Cluster:
    """A cluster without a Proxy: authorities, bots and one database service."""

    def __init__(self) -> None:
        self.authority = Authority.create()
        self.bots = Bots(self.authority)

    def protocol_of(self, service: str) -> str:
        if service != "example-server":
            raise LabError(f"database {service} is not found")
        return "postgres"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def token(cluster: Cluster) -> JoinToken:
    return cluster.bots.add("app", ["machine-id-db", "other"])


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "machine-id"


MakeTbot = Callable[..., Tbot]


@pytest.fixture
def make_tbot(cluster: Cluster, token: JoinToken, destination: Path) -> MakeTbot:
    def make(
        *,
        join: str = "",
        database: str = "{service: example-server, username: alice, database: example}",
        extra: str = "",
        layout: Layout = "v14",
        gap: float = 0.0,
        before_write: BeforeWrite | None = None,
        generate_key: Callable[[], PrivateKey] | None = None,
    ) -> Tbot:
        text = f"""
onboarding: {{{join or f'token: {token.token}, ca_pins: ["{token.ca_pin}"]'}}}
certificate_ttl: 60s
renewal_interval: 20s
{extra}
destinations:
  - directory: {destination}
    roles: [machine-id-db]
    database: {database}
"""
        return Tbot(
            load_tbot_config(text, "tbot.yaml"),
            cluster,
            layout=layout,
            gap=gap,
            before_write=before_write,
            generate_key=generate_key or itertools.cycle(KEYS).__next__,
        )

    return make


def certificate_in(destination: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((destination / "tlscert").read_bytes())


def key_matches(destination: Path) -> bool:
    key = load_pem_private_key((destination / "key").read_bytes(), None)
    return key.public_key().public_bytes(*SPKI) == certificate_in(
        destination
    ).public_key().public_bytes(*SPKI)


def names_in(destination: Path) -> set[str]:
    return {path.name for path in destination.glob("*")}


async def test_a_destination_holds_a_certificate_with_the_route(
    make_tbot: MakeTbot, cluster: Cluster, destination: Path
) -> None:
    await make_tbot().renew()
    certificate = certificate_in(destination)
    subject = decode_subject(certificate.subject)
    assert subject == SubjectFields(
        user="bot-app",
        roles=("machine-id-db",),
        logins=("-teleport-internal-join",),
        cluster_route="lab.example.com",
        traits={"logins": ()},
        service="example-server",
        protocol="postgres",
        db_user="alice",
        db_name="example",
        impersonator="bot-app",
        disallow_reissue=True,
        cluster="lab.example.com",
        bot_name="app",
        bot_instance_id=subject.bot_instance_id,
    )
    certificate.verify_directly_issued_by(cluster.authority.user_ca.certificate)
    assert key_matches(destination)


async def test_the_lifetime_of_the_file_is_used(make_tbot: MakeTbot, destination: Path) -> None:
    await make_tbot().renew()
    left = certificate_in(destination).not_valid_after_utc - datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)


async def test_a_destination_without_a_database_has_no_route(
    make_tbot: MakeTbot, destination: Path
) -> None:
    await make_tbot(database="null").renew()
    assert decode_subject(certificate_in(destination).subject).service == ""


async def test_keys_are_rsa_2048_in_pkcs1_by_default(
    make_tbot: MakeTbot, destination: Path
) -> None:
    await make_tbot(generate_key=new_rsa_key).renew()
    pem = (destination / "key").read_bytes()
    assert pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    key = load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert (destination / "key.pub").read_bytes().startswith(b"ssh-rsa AAAA")
    assert b"ssh-rsa-cert-v01@openssh.com AAAA" in (destination / "identity").read_bytes()


def test_rsa_is_what_a_tbot_uses_unless_told_otherwise(cluster: Cluster) -> None:
    assert Tbot(load_tbot_config("", "tbot.yaml"), cluster)._generate_key is new_rsa_key


async def test_ssh_files_belong_to_the_same_key(
    make_tbot: MakeTbot, cluster: Cluster, destination: Path
) -> None:
    await make_tbot().renew()
    line = (destination / "key-cert.pub").read_bytes()
    certificate = load_ssh_public_identity(line)
    assert isinstance(certificate, SSHCertificate)
    certificate.verify_cert_signature()
    public = certificate_in(destination).public_key().public_bytes(*SPKI)
    assert certificate.public_key().public_bytes(*SPKI) == public
    assert b'["machine-id-db"]' in certificate.extensions[b"teleport-roles"]
    authority_line = cluster.authority.ssh_host_ca.known_hosts_line
    assert authority_line in (destination / "identity").read_bytes()


async def test_authority_files_hold_every_trusted_authority(
    make_tbot: MakeTbot, cluster: Cluster, destination: Path
) -> None:
    tbot = make_tbot()
    await tbot.renew()
    cluster.authority.begin_rotation()
    await tbot.renew()
    authority = cluster.authority
    for name, trusted in (
        ("host", authority.trusted_host_cas),
        ("user", authority.trusted_user_cas),
        ("database", authority.trusted_database_cas),
    ):
        pem = (destination / f"teleport-{name}-ca.crt").read_bytes()
        loaded = x509.load_pem_x509_certificates(pem)
        assert loaded == [ca.certificate for ca in trusted]
        assert len(loaded) == 2
    certificate_in(destination).verify_directly_issued_by(authority.user_ca.certificate)


async def test_every_renewal_makes_a_new_key_and_certificate(
    make_tbot: MakeTbot, destination: Path
) -> None:
    tbot = make_tbot()
    await tbot.renew()
    first = (destination / "key").read_bytes(), certificate_in(destination).serial_number
    await tbot.renew()
    second = (destination / "key").read_bytes(), certificate_in(destination).serial_number
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert tbot.generation == 2
    assert key_matches(destination)


async def test_a_reader_between_certificate_and_key_sees_a_mismatch(
    make_tbot: MakeTbot, destination: Path
) -> None:
    matches: dict[str, bool] = {}

    def look(path: Path) -> None:
        if (destination / "key").exists():
            matches[path.name] = key_matches(destination)

    tbot = make_tbot(before_write=look)
    await tbot.renew()
    matches.clear()
    await tbot.renew()
    assert (matches["tlscert"], matches["key"], matches["key.pub"]) == (True, False, True)


@pytest.mark.parametrize("layout", ["v9", "v12", "v14", "v18"])
async def test_each_layout_writes_its_own_files(
    make_tbot: MakeTbot, destination: Path, layout: Layout
) -> None:
    await make_tbot(layout=layout).renew()
    names = names_in(destination)
    assert names >= {"identity", "tlscert", "key", "key.pub", "teleport-host-ca.crt"}
    assert ("sshcert" in names) is (layout == "v9")
    assert ("teleport-database-ca.crt" in names) is (layout != "v9")
    assert ("ssh_config" in names) is (layout in {"v9", "v12"})
    if layout == "v9":
        entries = (destination / "tlscacerts").read_bytes().split(b"$")
        assert [len(x509.load_pem_x509_certificates(entry)) for entry in entries] == [1, 1]


async def test_run_reports_started_after_the_first_renewal_and_renews_on_time(
    make_tbot: MakeTbot, destination: Path, autojump_clock: MockClock
) -> None:
    tbot = make_tbot()
    async with trio.open_nursery() as nursery:
        await nursery.start(tbot.run)
        assert tbot.generation == 1
        assert key_matches(destination)
        start = trio.current_time()
        await tbot.wait_renewed(after=1)
        assert trio.current_time() - start == pytest.approx(20.0)
        await tbot.wait_renewed(after=3)
        assert trio.current_time() - start == pytest.approx(60.0)
        nursery.cancel_scope.cancel()
    assert tbot.generation == 4
    assert key_matches(destination)


async def test_an_output_may_have_a_lifetime_and_an_interval_of_its_own(
    cluster: Cluster, token: JoinToken, destination: Path, autojump_clock: MockClock
) -> None:
    text = f"""
version: v2
onboarding: {{token: {token.token}}}
services:
  - type: database
    destination: {{type: directory, path: {destination}}}
    service: example-server
    credential_ttl: 30s
    renewal_interval: 10s
"""
    config = load_tbot_config(text, "tbot.yaml")
    tbot = Tbot(config, cluster, generate_key=itertools.cycle(KEYS).__next__)
    async with trio.open_nursery() as nursery:
        await nursery.start(tbot.run)
        start = trio.current_time()
        await tbot.wait_renewed(after=1)
        assert trio.current_time() - start == pytest.approx(10.0)
        nursery.cancel_scope.cancel()
    left = certificate_in(destination).not_valid_after_utc - datetime.now(UTC)
    assert timedelta() < left <= timedelta(seconds=30)


async def test_waiting_for_a_past_renewal_returns_at_once(make_tbot: MakeTbot) -> None:
    tbot = make_tbot()
    await tbot.renew()
    with trio.fail_after(5):
        await tbot.wait_renewed(after=0)


async def test_oneshot_stops_after_the_first_renewal(make_tbot: MakeTbot) -> None:
    tbot = make_tbot(extra="oneshot: true")
    with trio.fail_after(30):
        await tbot.run()
    assert tbot.generation == 1


async def test_a_cancelled_renewal_does_not_count_and_the_next_one_repairs_it(
    make_tbot: MakeTbot, destination: Path
) -> None:
    scope = trio.CancelScope()

    def cancel_during_the_second(path: Path) -> None:
        if path.name == "tlscert" and tbot.generation == 1:
            scope.cancel()

    tbot = make_tbot(before_write=cancel_during_the_second)
    await tbot.renew()
    with scope:
        await tbot.renew()
    assert scope.cancelled_caught
    assert tbot.generation == 1
    assert not key_matches(destination)
    await tbot.renew()
    assert tbot.generation == 2
    assert key_matches(destination)


async def test_renewals_never_overlap(make_tbot: MakeTbot, destination: Path) -> None:
    order: list[str] = []
    tbot = make_tbot(before_write=lambda path: order.append(path.name))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tbot.renew)
        nursery.start_soon(tbot.renew)
    half = len(order) // 2
    assert order[:half] == order[half:]
    assert key_matches(destination)


@pytest.mark.parametrize(
    ("join", "problem"),
    [
        ("token: wrong", "token"),
        ("token: /nowhere/token", "cannot read the join token"),
        ("join_method: iam", "join method iam"),
    ],
)
async def test_a_bot_that_may_not_join_ends_the_run(
    make_tbot: MakeTbot, destination: Path, join: str, problem: str
) -> None:
    with pytest.raises(JoinError, match=problem):
        await make_tbot(join=join).run()
    assert names_in(destination) == set()


async def test_a_foreign_pin_is_refused(make_tbot: MakeTbot, token: JoinToken) -> None:
    foreign = Authority.create().ca_pin
    with pytest.raises(JoinError, match="pin"):
        await make_tbot(join=f'token: {token.token}, ca_pins: ["{foreign}"]').run()


async def test_a_token_may_come_from_a_file(
    make_tbot: MakeTbot, token: JoinToken, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{token.token}\n")
    tbot = make_tbot(join=f"token: {tmp_path / 'token'}")
    await tbot.renew()
    assert tbot.generation == 1


async def test_a_role_that_the_bot_lacks_is_denied(
    make_tbot: MakeTbot, cluster: Cluster, destination: Path
) -> None:
    other = cluster.bots.add("other-app", ["unrelated"])
    with pytest.raises(AccessDenied, match="machine-id-db"):
        await make_tbot(join=f"token: {other.token}").run()
    assert names_in(destination) == set()


async def test_an_unknown_service_is_named(make_tbot: MakeTbot) -> None:
    with pytest.raises(LabError, match="nowhere is not found"):
        await make_tbot(database="{service: nowhere}").run()


async def test_a_destination_that_is_a_file_is_an_os_error(
    make_tbot: MakeTbot, destination: Path
) -> None:
    write_file(destination, b"")
    with pytest.raises(FileExistsError):
        await make_tbot().renew()


async def test_a_rotation_makes_it_renew_before_its_time(
    make_tbot: MakeTbot, cluster: Cluster, destination: Path, autojump_clock: MockClock
) -> None:
    tbot = make_tbot()
    authority = cluster.authority
    async with trio.open_nursery() as nursery:
        await nursery.start(tbot.run)
        for phase, renews in (
            (Phase.INIT, False),
            (Phase.UPDATE_CLIENTS, True),
            (Phase.UPDATE_SERVERS, False),
            (Phase.STANDBY, True),
        ):
            before, begin = tbot.generation, trio.current_time()
            authority.enter(phase)
            if not renews:
                await trio.sleep(1)
                assert tbot.generation == before
            else:
                await tbot.wait_renewed(before)
                assert trio.current_time() - begin < 1
                certificate_in(destination).verify_directly_issued_by(authority.user_ca.certificate)
        before, begin = tbot.generation, trio.current_time()
        await tbot.wait_renewed(before)
        assert trio.current_time() - begin == pytest.approx(20)
        nursery.cancel_scope.cancel()

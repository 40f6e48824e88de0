"""Whose certificate lets a client in when its TLS ends here."""

import ssl
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing
from identities import (
    HOUR,
    MINUTE,
    Authority,
    Cluster,
    destination_files,
    make_authority,
    make_certificate,
    make_key,
    subject_attributes,
    write_destination,
)
from loopback import TLSStream
from malformed import load_malformed
from OpenSSL import SSL
from openssl_ends import VERSION_1_2, client_layer
from stream_ends import FakeStream, memory_pair
from tls_peers import BOTH_VERSIONS, Credentials, client_context, make_credentials

from dbproxy.downstream import LocalAuthority, ServerCertificate, TerminatingAdmission
from dbproxy.downstream.client import Client, ClientGone
from dbproxy.errors import ClientError, Code, DBProxyError, IdentityError
from dbproxy.identity import DestinationSource, IdentityStore, read_destination
from dbproxy.protocols import Carry, protocol_named
from dbproxy.relay import LayeredStream

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
STARTUP = b"\0\0\0\x0e\0\3\0\0user\0\0"
CANCEL_REQUEST = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2"
ALERT, APPLICATION_DATA = 21, 23
NOW = datetime.now(UTC)
POSTGRES = protocol_named("postgres")
TLS_1_1 = ssl.TLSVersion(0x0302)
"""By its number, since its name is deprecated."""


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file count as written long ago: a User CA that did not sign is let pass."""
    for name in ("SETTLED_AFTER", "LEFT_OVER_AFTER"):
        monkeypatch.setitem(read_destination.__globals__, name, 0.0)


class ContextOfALaxSystem(SSL.Context):
    """One that allows what OpenSSL's default security level forbids, such as TLS 1.1."""

    def __init__(self, method: int) -> None:
        super().__init__(method)
        self.set_cipher_list(b"ALL:@SECLEVEL=0")


@pytest.fixture(scope="module")
def server_certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    directory = tmp_path_factory.mktemp("state")
    return LocalAuthority.open(directory).issue_server_certificate()


@pytest.fixture
def admission(store: IdentityStore, server_certificate: ServerCertificate) -> TerminatingAdmission:
    return TerminatingAdmission(POSTGRES, server_certificate, store)


def holder(
    authority: Authority,
    *,
    service: str | None = "example-server",
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Credentials:
    """A bot's certificate and key."""
    key = make_key()
    attributes = subject_attributes(service=service)
    certificate = make_certificate(
        authority, key, attributes, not_before=not_before, not_after=not_after
    )
    return Credentials(certificate, key)


@dataclass
class Outcome:
    """What became of a client."""

    carry: Carry | None = None
    error: DBProxyError | None = None

    @property
    def code(self) -> Code:
        assert self.error is not None
        return self.error.code


async def admit(
    admission: TerminatingAdmission,
    context: ssl.SSLContext,
    *,
    direct: bool = False,
    message: bytes = STARTUP,
    session: ssl.SSLSession | None = None,
) -> tuple[Outcome, TLSStream]:
    """A client of the standard library asks to be let in."""
    near, far = memory_pair()
    tls = TLSStream(far, context, server_side=False)
    if session is not None:
        tls.end.tls.session = session
    outcome = Outcome()

    async def decide() -> None:
        try:
            outcome.carry = await admission.admit(Client(near))
        except DBProxyError as error:
            outcome.error = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decide)
        if not direct:
            await far.send_all(SSL_REQUEST)
            assert await far.receive_some(1) == b"S"
        await tls.do_handshake()
        await tls.send_all(message)
    return outcome, tls


async def admit_holder(admission: TerminatingAdmission, credentials: Credentials | None) -> Outcome:
    outcome, _tls = await admit(admission, client_context(credentials=credentials))
    return outcome


class TestAdmitted:
    """Who gets in."""

    @pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
    async def test_the_holder_of_a_certificate_of_the_user_ca_for_this_service(
        self, version: ssl.TLSVersion, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context(credentials=holder(cluster.user), version=version)
        outcome, _tls = await admit(admission, context)
        assert outcome.carry == Carry(STARTUP, authenticate=True)

    @pytest.mark.usefixtures("settled")
    async def test_the_holder_of_the_destinations_certificate_although_the_user_ca_is_another(
        self, destination: Path, cluster: Cluster, server_certificate: ServerCertificate
    ) -> None:
        own = holder(make_authority())
        write_destination(destination, cluster, key=own.key, certificate=own.certificate)
        store = IdentityStore(DestinationSource(destination))
        await store.load()
        admission = TerminatingAdmission(POSTGRES, server_certificate, store)
        assert (await admit_holder(admission, own)).carry is not None

    @pytest.mark.usefixtures("settled")
    async def test_the_holder_of_any_earlier_certificate_as_long_as_that_is_valid(
        self, destination: Path, cluster: Cluster, server_certificate: ServerCertificate
    ) -> None:
        generations = [holder(make_authority()) for _ in range(4)]
        store = IdentityStore(DestinationSource(destination))
        for number, own in enumerate(generations[:3]):
            write_destination(destination, cluster, key=own.key, certificate=own.certificate)
            await (store.reload() if number else store.load())
        admission = TerminatingAdmission(POSTGRES, server_certificate, store)
        outcomes = [await admit_holder(admission, own) for own in generations]
        assert [outcome.carry is not None for outcome in outcomes] == [True, True, True, False]
        assert outcomes[3].code is Code.CLIENT_CERTIFICATE_REJECTED
        later = TerminatingAdmission(
            POSTGRES, server_certificate, store, clock=lambda: NOW + 2 * HOUR
        )
        assert (await admit_holder(later, generations[0])).error is not None

    async def test_the_holder_of_a_certificate_that_tbot_is_still_writing(
        self,
        destination: Path,
        cluster: Cluster,
        store: IdentityStore,
        admission: TerminatingAdmission,
    ) -> None:
        """In a CA rotation: the pair is there, the authority that makes it trusted is not yet."""
        rotated = replace(cluster, host=make_authority(), user=make_authority())
        own = holder(rotated.user)
        files = destination_files(rotated, own.key, own.certificate)
        await store.fresh()
        for name in ("tlscert", "key"):
            (destination / name).write_bytes(files[name])
        outcome = Outcome()

        async def connect() -> None:
            nonlocal outcome
            outcome = await admit_holder(admission, own)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            await trio.sleep(0.1)
            assert store.current.generation == 1
            for name in files.keys() - {"tlscert", "key"}:
                (destination / name).write_bytes(files[name])
        assert outcome.carry is not None
        assert store.current.user_cas == (rotated.user.certificate,)

    async def test_after_a_rotation_of_the_user_ca_the_new_one_counts(
        self, admission: TerminatingAdmission, destination: Path, cluster: Cluster
    ) -> None:
        rotated = replace(cluster, user=make_authority())
        assert (await admit_holder(admission, holder(rotated.user))).error is not None
        write_destination(destination, rotated)
        assert (await admit_holder(admission, holder(rotated.user))).carry is not None
        assert (await admit_holder(admission, holder(cluster.user))).error is not None

    async def test_a_client_that_begins_with_tls_at_once(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context(credentials=holder(cluster.user), alpn=["postgresql"])
        outcome, tls = await admit(admission, context, direct=True)
        assert outcome.carry is not None
        assert tls.end.tls.selected_alpn_protocol() == "postgresql"

    @pytest.mark.parametrize("alpn", [[], ["h2"], ["h2", "postgresql"]])
    async def test_clients_with_any_alpn_or_none(
        self, alpn: Sequence[str], admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context(credentials=holder(cluster.user), alpn=alpn)
        outcome, tls = await admit(admission, context)
        assert outcome.carry is not None
        assert (tls.end.tls.selected_alpn_protocol() == "postgresql") is ("postgresql" in alpn)

    async def test_a_cancel_request_without_tls_as_old_clients_send_it(
        self, admission: TerminatingAdmission
    ) -> None:
        carry = await admission.admit(Client(FakeStream(CANCEL_REQUEST)))
        assert carry == Carry(CANCEL_REQUEST, authenticate=True, reply_expected=False)

    async def test_a_cancel_request_inside_tls(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context(credentials=holder(cluster.user))
        outcome, _tls = await admit(admission, context, message=CANCEL_REQUEST)
        assert outcome.carry == Carry(CANCEL_REQUEST, authenticate=True, reply_expected=False)


class TestRefused:
    """Who does not get in, and what is said. Each has been let through the handshake."""

    async def refusal(
        self, admission: TerminatingAdmission, credentials: Credentials | None
    ) -> DBProxyError:
        outcome = await admit_holder(admission, credentials)
        assert outcome.error is not None
        return outcome.error

    @pytest.mark.parametrize("message", [STARTUP, CANCEL_REQUEST])
    @pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
    async def test_a_client_without_a_certificate(
        self, version: ssl.TLSVersion, message: bytes, admission: TerminatingAdmission
    ) -> None:
        outcome, _tls = await admit(admission, client_context(version=version), message=message)
        assert outcome.code is Code.CLIENT_CERTIFICATE_MISSING

    @pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
    async def test_a_certificate_of_another_authority_with_the_same_name(
        self, version: ssl.TLSVersion, admission: TerminatingAdmission
    ) -> None:
        context = client_context(credentials=holder(make_authority()), version=version)
        outcome, _tls = await admit(admission, context)
        assert outcome.code is Code.CLIENT_CERTIFICATE_REJECTED

    @pytest.mark.parametrize("which", ["host", "database"])
    async def test_a_certificate_of_the_clusters_other_authorities(
        self, which: str, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        error = await self.refusal(admission, holder(getattr(cluster, which)))
        assert error.code is Code.CLIENT_CERTIFICATE_REJECTED

    async def test_a_certificate_that_signed_itself(self, admission: TerminatingAdmission) -> None:
        error = await self.refusal(admission, make_credentials(None, common_name="eve"))
        assert error.code is Code.CLIENT_CERTIFICATE_REJECTED
        assert error.message == "the client's certificate (CN=eve) is self-signed"

    async def test_an_expired_certificate(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        expired = holder(cluster.user, not_before=NOW - HOUR, not_after=NOW - MINUTE)
        error = await self.refusal(admission, expired)
        assert error.code is Code.CLIENT_CERTIFICATE_REJECTED
        assert "has expired" in error.message

    async def test_a_certificate_of_tomorrow(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        early = holder(cluster.user, not_before=NOW + HOUR, not_after=NOW + 2 * HOUR)
        error = await self.refusal(admission, early)
        assert error.code is Code.CLIENT_CERTIFICATE_REJECTED
        assert "is not valid yet" in error.message

    async def test_a_certificate_for_another_service(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        error = await self.refusal(admission, holder(cluster.user, service="other"))
        assert error.code is Code.CLIENT_CERTIFICATE_WRONG_SERVICE
        assert error.message == (
            "the client's certificate is for the service 'other', and this port is for"
            " 'example-server'"
        )

    async def test_a_certificate_for_no_service(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        error = await self.refusal(admission, holder(cluster.user, service=None))
        assert error.code is Code.CLIENT_CERTIFICATE_WRONG_SERVICE
        assert "is for no database service" in error.message

    async def test_a_known_certificate_that_has_expired_meanwhile_is_not_the_clients_fault(
        self, destination: Path, cluster: Cluster, server_certificate: ServerCertificate
    ) -> None:
        own = holder(cluster.user)
        write_destination(destination, cluster, key=own.key, certificate=own.certificate)
        store = IdentityStore(DestinationSource(destination))
        await store.load()
        later = NOW + 2 * HOUR
        admission = TerminatingAdmission(POSTGRES, server_certificate, store, clock=lambda: later)
        error = await self.refusal(admission, own)
        assert isinstance(error, IdentityError)
        assert error.code is Code.CERTIFICATE_EXPIRED

    @pytest.mark.usefixtures("settled")
    async def test_a_previous_certificate_that_has_expired_meanwhile(
        self, destination: Path, cluster: Cluster, server_certificate: ServerCertificate
    ) -> None:
        old, new = holder(make_authority()), holder(cluster.user, not_after=NOW + 3 * HOUR)
        store = IdentityStore(DestinationSource(destination))
        for own in old, new:
            write_destination(destination, cluster, key=own.key, certificate=own.certificate)
            await (store.load() if own is old else store.reload())
        later = NOW + 2 * HOUR
        admission = TerminatingAdmission(POSTGRES, server_certificate, store, clock=lambda: later)
        error = await self.refusal(admission, old)
        assert error.code is Code.CLIENT_CERTIFICATE_REJECTED
        assert "is not valid now" in error.message

    async def test_a_certificate_that_cannot_be_parsed_is_refused_like_any_other(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context()
        load_malformed(context, holder(cluster.user), cluster.user.key)
        outcome, _tls = await admit(admission, context)
        assert outcome.code is Code.CLIENT_CERTIFICATE_REJECTED

    async def test_a_client_that_trusts_somebody_else(
        self, admission: TerminatingAdmission, cluster: Cluster
    ) -> None:
        context = client_context(make_authority("other"), credentials=holder(cluster.user))
        near, far = memory_pair()
        await far.send_all(SSL_REQUEST)
        tls = TLSStream(far, context, server_side=False)

        async def connect() -> None:
            assert await far.receive_some(1) == b"S"
            with pytest.raises(ssl.SSLCertVerificationError):
                await tls.do_handshake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            with pytest.raises(ClientError) as caught:
                await admission.admit(Client(near))
        assert caught.value.code is Code.CLIENT_TLS_FAILED

    @pytest.mark.parametrize("version", [TLS_1_1, *BOTH_VERSIONS], ids=lambda version: version.name)
    async def test_a_version_before_tls_1_2(
        self,
        version: ssl.TLSVersion,
        monkeypatch: pytest.MonkeyPatch,
        admission: TerminatingAdmission,
        cluster: Cluster,
    ) -> None:
        """Also where the system's policy would allow it, as it may on the client's side."""
        monkeypatch.setattr(SSL, "Context", ContextOfALaxSystem)
        context = client_context(credentials=holder(cluster.user))
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        near, far = memory_pair()
        tls = TLSStream(far, context, server_side=False)
        agreed: list[str | None] = []

        async def connect() -> None:
            await far.send_all(SSL_REQUEST)
            assert await far.receive_some(1) == b"S"
            with suppress(ssl.SSLError):
                await tls.do_handshake()
                agreed.append(tls.end.tls.version())
                await tls.send_all(STARTUP)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            if version in BOTH_VERSIONS:
                await admission.admit(Client(near))
            else:
                with pytest.raises(ClientError, match="unsupported protocol") as caught:
                    await admission.admit(Client(near))
                assert caught.value.code is Code.CLIENT_TLS_FAILED
        assert bool(agreed) is (version in BOTH_VERSIONS)

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (STARTUP, Code.CLIENT_NOT_TLS),
            (SSL_REQUEST + STARTUP, Code.CLIENT_PROTOCOL_ERROR),
            (b"GET / HTTP/1.1\r\n\r\n", Code.CLIENT_PROTOCOL_ERROR),
        ],
    )
    async def test_a_client_that_does_not_speak_tls(
        self, sent: bytes, code: Code, admission: TerminatingAdmission
    ) -> None:
        with pytest.raises(ClientError) as caught:
            await admission.admit(Client(FakeStream(sent)))
        assert caught.value.code is code

    async def test_tls_inside_tls(self, admission: TerminatingAdmission, cluster: Cluster) -> None:
        context = client_context(credentials=holder(cluster.user))
        outcome, _tls = await admit(admission, context, message=b"\x16\x03\x01\0\5")
        assert outcome.code is Code.CLIENT_PROTOCOL_ERROR


@pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
async def test_no_session_is_resumed_because_that_would_skip_the_check(
    version: ssl.TLSVersion, admission: TerminatingAdmission, cluster: Cluster
) -> None:
    context = client_context(credentials=holder(cluster.user), version=version)
    _outcome, first = await admit(admission, context)
    outcome, second = await admit(admission, context, session=first.end.tls.session)
    assert outcome.carry is not None
    assert second.end.tls.session_reused is False


async def test_clients_are_told_which_authority_is_wanted(
    admission: TerminatingAdmission, cluster: Cluster
) -> None:
    near, far = memory_pair()
    wire = LayeredStream(far)
    layer = client_layer()
    async with trio.open_nursery() as nursery:

        async def refuse() -> None:
            with pytest.raises(ClientError):
                await admission.admit(Client(near))

        nursery.start_soon(refuse)
        await wire.send_all(SSL_REQUEST)
        assert await wire.receive_some(1) == b"S"
        await wire.add_layer(layer)
        await wire.send_all(STARTUP)
    names = [name.der() for name in layer.connection.get_client_ca_list()]
    assert names == [cluster.user.certificate.subject.public_bytes()]


async def test_a_client_that_asks_for_another_handshake_is_told_no(
    admission: TerminatingAdmission, cluster: Cluster
) -> None:
    """In the middle of one, what the upstream says would be lost."""
    near, far = memory_pair()
    client, wire = Client(near), LayeredStream(far)
    layer = client_layer(credentials=holder(cluster.user), version=VERSION_1_2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.admit, client)
        await wire.send_all(SSL_REQUEST)
        assert await wire.receive_some(1) == b"S"
        await wire.add_layer(layer)
        await wire.send_all(STARTUP)
    layer.connection.renegotiate()
    with suppress(SSL.WantReadError):
        layer.connection.do_handshake()
    await far.send_all(layer.outgoing())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await client.stream.send_all(b"answer")
    kinds, said = [], await far.receive_some()
    while said:
        kinds.append(said[0])
        said = said[5 + int.from_bytes(said[3:5], "big") :]
    assert kinds == [ALERT, APPLICATION_DATA]


@pytest.mark.parametrize("steps", range(0, 30, 3))
async def test_it_can_be_cancelled_at_any_point(
    steps: int, admission: TerminatingAdmission, cluster: Cluster
) -> None:
    near, far = memory_pair()
    tls = TLSStream(far, client_context(credentials=holder(cluster.user)), server_side=False)

    async def connect() -> None:
        await far.send_all(SSL_REQUEST)
        assert await far.receive_some(1) == b"S"
        await tls.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.admit, Client(near))
        nursery.start_soon(connect)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_client_that_goes_away_is_gone(admission: TerminatingAdmission) -> None:
    with pytest.raises(ClientGone):
        await admission.admit(Client(FakeStream(SSL_REQUEST[:3], b"")))

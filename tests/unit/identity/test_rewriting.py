"""A renewal, cut into its file operations, beside a reader, cut into its own.

Whatever order the two take: a reader gets the identity from before or from after the renewal, or
none. The renewals are written in the orders of tbot (tool/tbot/renew.go, lib/tbot/config,
lib/tbot/services/database/output_service.go), each file first emptied, then written in two parts.
Where a renewal belongs to a rotation of all authorities, those must fit as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from destinations import write_files
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import (
    Authority,
    certificate_pem,
    key_pem,
    make_authority,
    make_certificate,
    make_key,
)

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import DestinationSource, Identity
from dbproxy.identity.assemble import is_issued_by_one_of
from dbproxy.identity.folder import Folder

SSH_LINE = b"ecdsa-sha2-nistp256-cert-v01@openssh.com AAAA bot-app\n"
KNOWN_HOSTS = b"@cert-authority teleport.example.com ecdsa-sha2-nistp256 AAAA type=host\n"
REFUSALS = {
    Code.IDENTITY_MISSING,
    Code.IDENTITY_MALFORMED,
    Code.IDENTITY_MIXED,
    Code.KEY_MISMATCH,
}

ARTIFACTS = ("key-cert.pub", "tlscert", "key", "key.pub", ".write-test")
AUTHORITIES = ("teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt")
TLS = ("tls.crt", "tls.key", "tls.cas")
MONGO = ("mongo.crt", "mongo.cas")
COCKROACH = ("cockroach/node.crt", "cockroach/node.key", "cockroach/ca.crt")
WITH_IDENTITY_FILE: Mapping[str, Sequence[str]] = {
    "9.0": (
        *("sshcert", "sshcacerts", "tlscert", "tlscacerts", "key", "key.pub"),
        *("known_hosts", "identity", *AUTHORITIES[:2]),
    ),
    "9.3": (*ARTIFACTS, *MONGO, "known_hosts", "identity", *AUTHORITIES),
    "14": (*ARTIFACTS, *AUTHORITIES, "identity", *TLS),
    "18": (*AUTHORITIES, "identity", *ARTIFACTS, *COCKROACH),
}
ALONE: Mapping[str, Sequence[str]] = {
    "identity": ("identity",),
    "tls": TLS,
    "mongo": ("teleport-host-ca.crt", *MONGO),
    "cockroach": ("teleport-host-ca.crt", *COCKROACH),
    "authority list": ("tlscert", "tlscacerts", "key"),
}


@dataclass(frozen=True)
class Generation:
    """What one renewal writes."""

    issuer: Authority
    host: tuple[Authority, ...]
    user: tuple[Authority, ...]
    database: tuple[Authority, ...]


@dataclass(frozen=True)
class Renewal:
    """The files of one renewal, in the order that they are written."""

    certificate: x509.Certificate
    generation: Generation
    files: Mapping[str, bytes]


OLD_CA, NEW_CA = (tuple(make_authority() for _ in range(3)) for _ in range(2))
STANDBY = Generation(OLD_CA[1], (OLD_CA[0],), (OLD_CA[1],), (OLD_CA[2],))
ROTATING = Generation(NEW_CA[1], *((OLD_CA[i], NEW_CA[i]) for i in range(3)))
ROTATED = Generation(NEW_CA[1], (NEW_CA[0],), (NEW_CA[1],), (NEW_CA[2],))


def make_renewal(order: Sequence[str], generation: Generation) -> Renewal:
    key = make_key()
    certificate = make_certificate(generation.issuer, key)
    leaf, secret = certificate_pem(certificate), key_pem(key)
    host, user, database = (
        b"".join(authority.pem for authority in group)
        for group in (generation.host, generation.user, generation.database)
    )
    contents = {
        "key-cert.pub": SSH_LINE,
        "sshcert": SSH_LINE,
        "sshcacerts": b"ecdsa AAAA\n$ecdsa BBBB\n",
        "tlscert": leaf,
        "tlscacerts": b"$".join(
            authority.pem for authority in (*generation.host, *generation.user)
        ),
        "key": secret,
        "key.pub": b"ecdsa-sha2-nistp256 AAAA\n",
        ".write-test": b"",
        "known_hosts": KNOWN_HOSTS,
        "identity": secret + SSH_LINE + leaf + KNOWN_HOSTS + host,
        "teleport-host-ca.crt": host,
        "teleport-user-ca.crt": user,
        "teleport-database-ca.crt": database,
        "tls.crt": leaf,
        "tls.key": secret,
        "tls.cas": host,
        "mongo.crt": leaf + secret,
        "mongo.cas": database,
        "cockroach/node.crt": leaf,
        "cockroach/node.key": secret,
        "cockroach/ca.crt": database,
    }
    return Renewal(certificate, generation, {name: contents[name] for name in order})


def operations(
    directory: Path, old: Mapping[str, bytes], new: Mapping[str, bytes], cut: int, *, truncate: bool
) -> Iterator[None]:
    """Rewrite each file in three steps; every `next` takes one."""
    for name, data in new.items():
        middle = cut % (len(data) + 1)
        rest = b"" if truncate else old[name]
        for written in (b"", data[:middle], data):
            (directory / name).write_bytes(written + rest[len(written) :])
            yield


class Interleaved:
    """Lets a writer take steps between those of a reader."""

    def __init__(self, writer: Iterator[None], before: Sequence[int]) -> None:
        self._writer = writer
        self._before = list(before)

    def step(self) -> None:
        for _ in range(self._before.pop(0) if self._before else 0):
            next(self._writer, None)

    def read(self, source: DestinationSource) -> Identity:
        real_has, real_read = Folder.has, Folder.read

        def has(folder: Folder, name: str) -> bool:
            self.step()
            return real_has(folder, name)

        def read(folder: Folder, name: str) -> bytes:
            self.step()
            return real_read(folder, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "has", has)
            patch.setattr(Folder, "read", read)
            return source.read()


def to_schedule(begin: int, jumps: list[tuple[int, int]]) -> list[int]:
    """How many steps the writer takes before each step of the reader."""
    schedule = [0] * (sum(pause for pause, _ in jumps) + len(jumps) + 1)
    schedule[0] = begin
    position = 0
    for pause, steps in jumps:
        position += pause + 1
        schedule[position] = steps
    return schedule


SCHEDULES = st.builds(
    to_schedule,
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 15)), max_size=4),
)
CUTS = st.integers(0, 3000)


def run(
    old: Renewal, new: Renewal, cut: int, schedule: list[int], *, truncate: bool = True
) -> Identity | None:
    """One read during a renewal: its result, or None when it was refused."""
    with TemporaryDirectory() as name:
        return run_in(Path(name), old, new, cut, schedule, truncate=truncate)


def run_in(
    directory: Path, old: Renewal, new: Renewal, cut: int, schedule: list[int], *, truncate: bool
) -> Identity | None:
    write_files(directory, old.files)
    source = DestinationSource(directory)
    writer = operations(directory, old.files, new.files, cut, truncate=truncate)
    interleaved = Interleaved(writer, schedule)
    identity = attempt(lambda: interleaved.read(source))
    for _ in writer:
        pass
    assert source.read().certificate == new.certificate
    return identity


def attempt(read: Callable[[], Identity]) -> Identity | None:
    """What is read, or None when it is refused as something that may become readable."""
    try:
        return read()
    except IdentityError as error:
        if error.code in REFUSALS:
            return None
        raise


def check_pair(identity: Identity, *renewals: Renewal) -> Renewal:
    """The renewal that the certificate is from; the key must be from the same one."""
    assert identity.private_key.public_key() == identity.certificate.public_key()
    (found,) = (one for one in renewals if one.certificate == identity.certificate)
    return found


def certificates(group: Sequence[Authority]) -> set[x509.Certificate]:
    return {authority.certificate for authority in group}


@pytest.mark.parametrize("order", [*WITH_IDENTITY_FILE.values(), *ALONE.values()], ids=str)
@given(cut=CUTS, schedule=SCHEDULES)
@settings(max_examples=25)
def test_a_renewal_is_read_as_it_was_before_or_as_it_is_after(
    order: Sequence[str], cut: int, schedule: list[int]
) -> None:
    old, new = (make_renewal(order, STANDBY) for _ in range(2))
    identity = run(old, new, cut, schedule)
    if identity is not None:
        check_pair(identity, old, new)
        assert set(identity.host_cas) == certificates(STANDBY.host)
        assert not identity.user_cas or set(identity.user_cas) == certificates(STANDBY.user)
        assert set(identity.database_cas) <= certificates(STANDBY.database)


@pytest.mark.parametrize("order", WITH_IDENTITY_FILE.values(), ids=WITH_IDENTITY_FILE)
@pytest.mark.parametrize("phases", [(STANDBY, ROTATING), (ROTATING, ROTATED)], ids=["in", "out"])
@given(cut=CUTS, schedule=SCHEDULES)
def test_in_a_rotation_the_authorities_are_those_of_the_certificate(
    order: Sequence[str],
    phases: tuple[Generation, Generation],
    cut: int,
    schedule: list[int],
) -> None:
    old, new = (make_renewal(order, phase) for phase in phases)
    identity = run(old, new, cut, schedule)
    if identity is None:
        return
    found = check_pair(identity, old, new).generation
    assert set(identity.host_cas) == certificates(found.host)
    assert is_issued_by_one_of(identity.certificate, identity.user_cas)
    if order[-1] not in AUTHORITIES:
        # Elsewhere tbot writes them last, and nothing tells which renewal they are from.
        assert set(identity.user_cas) == certificates(found.user)
        assert set(identity.database_cas) == certificates(found.database)


@pytest.mark.parametrize("order", WITH_IDENTITY_FILE.values(), ids=WITH_IDENTITY_FILE)
@given(cut=CUTS, schedule=SCHEDULES)
@settings(max_examples=25)
def test_what_is_written_over_an_older_file_is_told_from_it(
    order: Sequence[str], cut: int, schedule: list[int]
) -> None:
    """The earliest versions of tbot did not truncate the old file."""
    old, new = make_renewal(order, ROTATING), make_renewal(order, ROTATED)
    identity = run(old, new, cut, schedule, truncate=False)
    if identity is not None:
        check_pair(identity, old, new)


@pytest.mark.parametrize("order", [*WITH_IDENTITY_FILE.values(), *ALONE.values()], ids=str)
@given(cut=CUTS, steps=st.integers(0, 60))
@settings(max_examples=25)
def test_a_first_write_is_refused_until_it_is_complete(
    order: Sequence[str], cut: int, steps: int
) -> None:
    new = make_renewal(order, STANDBY)
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "cockroach").mkdir()
        writer = operations(directory, {}, new.files, cut, truncate=True)
        for _ in range(steps):
            next(writer, None)
        identity = attempt(DestinationSource(directory).read)
    if identity is not None:
        check_pair(identity, new)
        assert set(identity.host_cas) == certificates(STANDBY.host)


def test_authorities_that_change_while_others_are_read_are_noticed(tmp_path: Path) -> None:
    """The User CA alone would fit to the old certificate and to the new one."""
    order = WITH_IDENTITY_FILE["18"]
    old, new = make_renewal(order, STANDBY), make_renewal(order, ROTATING)
    write_files(tmp_path, old.files)
    writer = operations(tmp_path, old.files, new.files, 0, truncate=True)
    real_read = Folder.read

    def read(folder: Folder, name: str) -> bytes:
        if name == "teleport-user-ca.crt":
            for _ in range(2 * 3):
                next(writer, None)
        return real_read(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "read", read)
        identity = attempt(DestinationSource(tmp_path).read)
    if identity is not None:
        found = check_pair(identity, old, new).generation
        assert set(identity.user_cas) == certificates(found.user)


def test_the_phases_differ_in_every_authority() -> None:
    assert replace(ROTATING, issuer=STANDBY.issuer) != STANDBY
    groups = [(phase.host, phase.user, phase.database) for phase in (STANDBY, ROTATING, ROTATED)]
    for group in zip(*groups, strict=True):
        assert len({tuple(certificates(authorities)) for authorities in group}) == 3

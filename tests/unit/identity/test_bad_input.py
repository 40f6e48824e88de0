"""Each file of each layout, broken in each way: its own error, at once, in little memory."""

import errno
import os
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from destinations import FIXTURES, SAMPLES, Sample, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import (
    DestinationSource,
    IdentityFileSource,
    IdentitySource,
    NamedFilesSource,
    load_certificates,
    load_private_key,
    read_destination,
)
from dbproxy.identity.folder import Folder
from dbproxy.identity.identity import Identity
from dbproxy.identity.identity_file import parse_identity_file

LAYOUTS = ("v18", "v9.0", "authority-list", "identity-file", "tls", "mongo", "cockroach")
EVERY_FILE = [(SAMPLES[layout], name) for layout in LAYOUTS for name in SAMPLES[layout].used]
GIBIBYTE = 1024**3
MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Breakage:
    """One way to break a file.

    Attributes:
        name: What it is called.
        apply: Breaks the file at a path, given its good content.
        code: The error that it must give.
        text: What the error must say about it.
    """

    name: str
    apply: Callable[[Path, bytes], object]
    code: Code
    text: str


def replace_by(make: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """Put something else in the file's place."""

    def apply(path: Path, _content: bytes) -> None:
        path.unlink()
        make(path)

    return apply


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path, bytes], object]:
    """Change the content."""
    return lambda path, content: path.write_bytes(change(content))


def grow(path: Path, _content: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate(GIBIBYTE)


def bind_socket(path: Path) -> None:
    previous = Path.cwd()
    os.chdir(path.parent)  # the address of a socket may have 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(previous)


def relabel(content: bytes) -> bytes:
    for label in (b"CERTIFICATE", b"RSA PRIVATE KEY"):
        content = content.replace(b"BEGIN " + label, b"BEGIN NONSENSE")
        content = content.replace(b"END " + label, b"END NONSENSE")
    return content


def to_der(content: bytes) -> bytes:
    if content.startswith(b"-----BEGIN CERTIFICATE"):
        return load_certificates(content, Path("x"))[0].public_bytes(Encoding.DER)
    key = load_private_key(content, Path("x"))
    return key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def damage(content: bytes) -> bytes:
    """Exchange two lines inside the first block."""
    lines = content.splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    return b"".join(lines)


BREAKAGES = (
    Breakage("empty", rewrite(lambda _: b""), Code.IDENTITY_MALFORMED, "is empty"),
    Breakage("blank", rewrite(lambda _: b" \r\n" * 9), Code.IDENTITY_MALFORMED, "is empty"),
    Breakage("cut", rewrite(lambda c: c[:300]), Code.IDENTITY_MALFORMED, "is truncated"),
    Breakage("text", rewrite(lambda _: b"Not found\n"), Code.IDENTITY_MALFORMED, "hold|begin"),
    Breakage("zeros", rewrite(lambda c: bytes(len(c))), Code.IDENTITY_MALFORMED, "hold|begin"),
    Breakage("relabelled", rewrite(relabel), Code.IDENTITY_MALFORMED, "NONSENSE|begin"),
    Breakage("binary", rewrite(to_der), Code.IDENTITY_MALFORMED, "DER|begin"),
    Breakage("damaged", rewrite(damage), Code.IDENTITY_MALFORMED, "damaged"),
    Breakage("directory", replace_by(Path.mkdir), Code.IDENTITY_MALFORMED, "not a regular file"),
    Breakage("fifo", replace_by(os.mkfifo), Code.IDENTITY_MALFORMED, "not a regular file"),
    Breakage(
        "device",
        replace_by(lambda path: path.symlink_to("/dev/zero")),
        Code.IDENTITY_MALFORMED,
        "not a regular file",
    ),
    Breakage("socket", replace_by(bind_socket), Code.IDENTITY_UNREADABLE, "cannot be read"),
    Breakage("gibibyte", grow, Code.IDENTITY_MALFORMED, "more than 1048576 bytes"),
    Breakage(
        "dangling link",
        replace_by(lambda path: path.symlink_to("gone")),
        Code.IDENTITY_MISSING,
        "leads nowhere",
    ),
    Breakage(
        "endless link",
        replace_by(lambda path: path.symlink_to(path.name)),
        Code.IDENTITY_UNREADABLE,
        "cannot be read",
    ),
)
WAYS = pytest.mark.parametrize("breakage", BREAKAGES, ids=[one.name for one in BREAKAGES])
FILES = pytest.mark.parametrize(
    ("sample", "name"), EVERY_FILE, ids=[f"{sample.name}/{name}" for sample, name in EVERY_FILE]
)


def refuse(source: IdentitySource) -> IdentityError:
    """Read in vain: soon, in little memory, and without a descriptor left open."""
    descriptors = count_descriptors()
    begin = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(IdentityError) as caught:
            source.read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 5
    assert peak < 8 * MEBIBYTE
    assert count_descriptors() == descriptors
    return caught.value


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def secrets_of(files: Iterator[bytes]) -> set[str]:
    """Pieces of every private key."""
    keys = [content.partition(b"PRIVATE KEY-----\n")[2] for content in files]
    return {line.decode()[:20] for key in keys for line in key.split(b"-----")[0].splitlines()}


def check_discreet(error: BaseException | None, files: Iterator[bytes]) -> None:
    """No piece of a key is in the error or in what caused it."""
    secrets = secrets_of(files)
    while error is not None:
        told = f"{error!r} {error}"
        assert not any(secret in told for secret in secrets if secret)
        error = error.__cause__


@FILES
@WAYS
def test_a_broken_file_gives_its_own_error(
    tmp_path: Path, sample: Sample, name: str, breakage: Breakage
) -> None:
    files = sample.files()
    write_files(tmp_path, files)
    breakage.apply(tmp_path / name, files[name])
    error = refuse(sample.source(tmp_path))
    assert error.code is breakage.code
    assert str(error).startswith(str(tmp_path / name))
    assert any(part in str(error) for part in breakage.text.split("|"))
    check_discreet(error, iter(files.values()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("directory", ("is a directory", "remove what is in its place")),
        ("fifo", ("is a FIFO", "remove what is in its place")),
        ("device", ("is a device", "remove what is in its place")),
        ("socket", ("ls -l", "remove it")),
        ("endless link", ("ls -l", "remove it")),
        ("gibibyte", ("something else has written to it",)),
        ("cut", ("tbot may be writing it right now",)),
    ],
)
@pytest.mark.parametrize(
    "source", [DestinationSource, lambda path: IdentityFileSource(path / "identity")]
)
def test_the_next_step_fits_to_what_is_in_the_place_of_the_file(
    tmp_path: Path, source: Callable[[Path], IdentitySource], name: str, words: tuple[str, ...]
) -> None:
    """Nobody waits for tbot to end the write of a FIFO."""
    sample = SAMPLES["identity-file"]
    write_files(tmp_path, sample.files())
    breakage = next(one for one in BREAKAGES if one.name == name)
    breakage.apply(tmp_path / "identity", sample.files()["identity"])
    error = refuse(source(tmp_path))
    told = f"{error.message} {error.next_step}"
    assert all(word in told for word in words)
    assert name == "cut" or "writing" not in told
    assert "reader" not in error.next_step


def test_the_next_step_for_a_file_without_permission_is_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, SAMPLES["identity-file"].files())

    def deny(*_arguments: object, **_options: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("dbproxy.identity.folder.read_regular_file", deny)
    with pytest.raises(IdentityError) as caught:
        IdentityFileSource(tmp_path / "identity").read()
    assert "readers" in caught.value.next_step


@FILES
def test_a_file_without_permission_gives_its_own_error(
    tmp_path: Path, sample: Sample, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modes do not bind root, as which tests may run; so the system's answer is simulated."""
    write_files(tmp_path, sample.files())
    real_open = os.open

    def deny(path: Path, flags: int, *, dir_fd: int | None = None) -> int:
        if path == Path(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr("dbproxy.identity.files.os.open", deny)
    error = refuse(sample.source(tmp_path))
    assert error.code is Code.IDENTITY_UNREADABLE
    assert str(error) == f"{tmp_path / name} cannot be read: Permission denied"


@WAYS
@pytest.mark.parametrize("name", ["tlscert", "key", "teleport-host-ca.crt"])
def test_a_broken_file_that_was_named_gives_its_own_error(
    tmp_path: Path, name: str, breakage: Breakage
) -> None:
    files = SAMPLES["v18"].files()
    write_files(tmp_path, files)
    breakage.apply(tmp_path / name, files[name])
    paths = (tmp_path / one for one in ("tlscert", "key", "teleport-host-ca.crt"))
    error = refuse(NamedFilesSource(*paths))
    assert error.code is breakage.code
    assert str(error).startswith(str(tmp_path / name))


@WAYS
def test_a_broken_identity_file_that_was_named_gives_its_own_error(
    tmp_path: Path, breakage: Breakage
) -> None:
    files = SAMPLES["identity-file"].files()
    write_files(tmp_path, files)
    breakage.apply(tmp_path / "identity", files["identity"])
    error = refuse(IdentityFileSource(tmp_path / "identity"))
    assert error.code is breakage.code
    assert str(error).startswith(str(tmp_path / "identity"))


@pytest.mark.parametrize(
    "breakage",
    [one for one in BREAKAGES if one.code is Code.IDENTITY_MALFORMED],
    ids=lambda breakage: breakage.name,
)
def test_a_broken_identity_file_beside_good_files_counts_only_while_it_is_new(
    tmp_path: Path, breakage: Breakage
) -> None:
    """tbot may be writing it; what it left long ago in such a state is not needed."""
    sample = SAMPLES["v18"]
    files = sample.files()
    write_files(tmp_path, files)
    breakage.apply(tmp_path / "identity", files["identity"])
    error = refuse(sample.source(tmp_path))
    assert error.code is Code.IDENTITY_MIXED
    assert str(tmp_path / "identity") in str(error)
    if breakage.name != "device":
        assert read_later(tmp_path, 6).files.certificate == tmp_path / "tlscert"


def test_an_identity_file_of_an_older_configuration_is_let_pass_once_all_is_settled(
    tmp_path: Path,
) -> None:
    files = SAMPLES["v18"].files() | {"identity": SAMPLES["v9.0"].files()["identity"]}
    source = DestinationSource(write_files(tmp_path, files))
    error = refuse(source)
    assert error.code is Code.IDENTITY_MIXED
    assert "holds another certificate" in str(error)
    assert read_later(tmp_path, 6).files.certificate == tmp_path / "tlscert"


def read_later(directory: Path, seconds: float) -> Identity:
    return read_destination(directory, clock=lambda: time.time() + seconds)


def test_a_file_much_older_than_the_certificate_holds_up_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SAMPLES["v18"].files() | {"identity": SAMPLES["v9.0"].files()["identity"]}
    write_files(tmp_path, files)
    with pytest.raises(IdentityError):
        read_later(tmp_path, 1)
    changed = Folder.changed
    monkeypatch.setattr(
        Folder,
        "changed",
        lambda folder, name: changed(folder, name) - (3600 if name == "identity" else 0),
    )
    with pytest.raises(IdentityError):
        read_destination(tmp_path)
    assert read_later(tmp_path, 1).files.certificate == tmp_path / "tlscert"


def test_a_host_ca_of_another_renewal_is_refused_while_it_is_new(tmp_path: Path) -> None:
    host_ca = SAMPLES["rotation"].files()["teleport-host-ca.crt"]
    files = SAMPLES["v18"].files() | {"teleport-host-ca.crt": host_ca}
    error = refuse(DestinationSource(write_files(tmp_path, files)))
    assert error.code is Code.IDENTITY_MIXED
    assert "other certificates of the Host CA" in str(error)


def test_a_user_ca_that_did_not_sign_is_refused_while_it_is_new(tmp_path: Path) -> None:
    files = SAMPLES["v18"].files()
    files["teleport-user-ca.crt"] = files["teleport-database-ca.crt"]
    source = DestinationSource(write_files(tmp_path, files))
    error = refuse(source)
    assert error.code is Code.IDENTITY_MIXED
    assert str(tmp_path / "teleport-user-ca.crt") in str(error)
    assert read_later(tmp_path, 6).files.user_ca == tmp_path / "teleport-user-ca.crt"


def test_an_empty_directory_names_what_is_looked_for(tmp_path: Path) -> None:
    error = refuse(DestinationSource(tmp_path))
    assert error.code is Code.IDENTITY_MISSING
    for name in ("tlscert", "identity", "tls.crt", "mongo.crt", "cockroach/node.crt"):
        assert name in str(error)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"tlscert"}, "key"),
        ({"key"}, "tlscert"),
        ({"tls.crt"}, "tls.key"),
        ({"tls.crt", "tls.key"}, "tls.cas"),
        ({"mongo.crt", "mongo.cas"}, "teleport-host-ca.crt"),
    ],
)
def test_the_file_that_is_missing_is_named(tmp_path: Path, files: set[str], missing: str) -> None:
    every = {**SAMPLES["v14-tls"].files(), **SAMPLES["mongo"].files()}
    write_files(tmp_path, {name: every[name] for name in files})
    error = refuse(DestinationSource(tmp_path))
    assert error.code is Code.IDENTITY_MISSING
    assert str(error) == f"{tmp_path / missing} does not exist"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.touch])
def test_explaining_never_fails(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "tlscert")
    (tmp_path / "key").symlink_to("key")
    explanation = DestinationSource(tmp_path).explain()
    assert [file.present for file in explanation.files] == [True, True, False]
    assert DestinationSource(tmp_path / "tlscert" / "below").explain().layout == "default files"
    assert not any(file.present for file in DestinationSource(Path("a\0b")).explain().files)
    assert not any(file.present for file in IdentityFileSource(Path("a\0b")).explain().files)


@st.composite
def truncations(draw: st.DrawFn) -> tuple[Sample, str, int]:
    sample, name = draw(st.sampled_from(EVERY_FILE))
    return sample, name, draw(st.integers(0, len(sample.files()[name]) - 2))


@given(truncation=truncations())
@settings(max_examples=150)
def test_a_truncated_file_is_refused_in_every_layout(
    tmp_path_factory: pytest.TempPathFactory, truncation: tuple[Sample, str, int]
) -> None:
    sample, name, length = truncation
    files = sample.files()
    files[name] = files[name][:length]
    directory = tmp_path_factory.getbasetemp() / "truncated"
    write_files(directory / sample.name, files)
    with pytest.raises(IdentityError) as caught:
        sample.source(directory / sample.name).read()
    assert caught.value.code is Code.IDENTITY_MALFORMED
    assert str(caught.value).startswith(str(directory / sample.name / name))


@pytest.mark.parametrize(
    ("path", "parse"),
    [
        ("v18/tlscert", load_certificates),
        ("v18/key", load_private_key),
        ("key-ed25519-pkcs8/key", load_private_key),
        ("v9.0/tlscacerts", load_certificates),
        ("rotation/teleport-host-ca.crt", load_certificates),
        ("mongo/mongo.crt", load_private_key),
        ("rotation/identity", parse_identity_file),
    ],
)
def test_a_file_truncated_at_every_offset_is_refused_unless_it_ends_with_a_whole_block(
    path: str, parse: Callable[[bytes, Path], object]
) -> None:
    """A list cut between two authorities is a list; that its file is new must tell (see below)."""
    data = (FIXTURES / path).read_bytes()
    read = []
    for length in range(len(data)):
        try:
            parse(data[:length], Path(path))
        except IdentityError as error:
            if error.code is not Code.IDENTITY_MALFORMED:
                raise
        else:
            read.append(length)
    ends = [data[:length].rstrip().endswith(b"-----") for length in read]
    assert all(ends)
    assert len(data) - 1 in read


def test_a_list_cut_between_two_authorities_is_told_by_the_identity_file(tmp_path: Path) -> None:
    files = SAMPLES["rotation"].files()
    for name, end in (("teleport-host-ca.crt", 1), ("teleport-user-ca.crt", 1), ("identity", 1)):
        cut = dict(files)
        marker = b"-----END CERTIFICATE-----\n"
        blocks = cut[name].split(marker)
        cut[name] = marker.join(blocks[:-2]) + marker
        assert cut[name] != files[name]
        error = refuse(DestinationSource(write_files(tmp_path / name / str(end), cut)))
        assert error.code is Code.IDENTITY_MIXED

"""A directory that changes while it is read, as a mounted Kubernetes secret does."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from destinations import FIXTURES, files_of, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import (
    DestinationSource,
    Identity,
    IdentityFileSource,
    IdentitySource,
    NamedFilesSource,
)
from dbproxy.identity.folder import Folder, read_steadily

VERSIONS = ("..2026_01_01_00_00_00.1111111111", "..2026_01_01_00_20_00.2222222222")
CONTENTS = {version: files_of(FIXTURES / "kubernetes" / version) for version in VERSIONS}
NAMES = tuple(CONTENTS[VERSIONS[0]])


class Mount:
    """A volume of a secret, updated as kubelet does it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = -1
        self.update()
        for name in NAMES:
            (directory / name).symlink_to(Path("..data") / name)

    def update(self) -> None:
        """Write the next version, swap the link, remove the version before."""
        before = self._target()
        self.version += 1
        name = f"..{self.version}"
        write_files(self.directory / name, CONTENTS[VERSIONS[self.version % 2]])
        (self.directory / "..data_tmp").symlink_to(name)
        (self.directory / "..data_tmp").rename(self.directory / "..data")
        if before is not None:
            shutil.rmtree(self.directory / before)

    def _target(self) -> str | None:
        link = self.directory / "..data"
        return str(link.readlink()) if link.is_symlink() else None


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path)


def directory_source(directory: Path) -> IdentitySource:
    return DestinationSource(directory)


def identity_file_source(directory: Path) -> IdentitySource:
    return IdentityFileSource(directory / "identity")


def named_files_source(directory: Path) -> IdentitySource:
    return NamedFilesSource(
        directory / "tlscert", directory / "key", directory / "teleport-host-ca.crt"
    )


SOURCES = pytest.mark.parametrize(
    "make_source", [directory_source, identity_file_source, named_files_source]
)
MakeSource = Callable[[Path], IdentitySource]


def version_of(identity: Identity) -> str:
    """Which version the certificate is from; its authorities must be from the same one."""
    (version,) = (
        version
        for version in VERSIONS
        if identity.certificate
        == IdentityFileSource(FIXTURES / "kubernetes" / version / "identity").read().certificate
    )
    (host_ca,) = identity.host_cas
    expected = CONTENTS[version]["teleport-host-ca.crt"]
    assert host_ca.public_bytes(Encoding.PEM) == expected
    return version


@SOURCES
def test_a_mounted_secret_is_read_through_its_links(mount: Mount, make_source: MakeSource) -> None:
    source = make_source(mount.directory)
    assert version_of(source.read()) == VERSIONS[0]
    mount.update()
    assert version_of(source.read()) == VERSIONS[1]


def test_clients_are_told_the_names_that_last(mount: Mount) -> None:
    files = DestinationSource(mount.directory).read().files
    assert files.certificate == mount.directory / "tlscert"
    assert files.key == mount.directory / "key"


@SOURCES
def test_a_swap_changes_the_stamp(mount: Mount, make_source: MakeSource) -> None:
    source = make_source(mount.directory)
    before = source.stamp()
    assert source.stamp() == before
    mount.update()
    assert source.stamp() != before


@SOURCES
@given(moments=st.lists(st.integers(0, 12), max_size=3))
@settings(max_examples=30)
def test_a_swap_at_any_moment_never_mixes_two_versions(
    make_source: MakeSource, moments: list[int]
) -> None:
    with TemporaryDirectory() as name:
        updated = Mount(Path(name))

        def update(number: int) -> None:
            for _ in range(moments.count(number)):
                updated.update()

        with count_reads(update) as reads:
            identity = make_source(updated.directory).read()
    assert version_of(identity) in VERSIONS
    assert len(reads) <= 60


@contextmanager
def count_reads(before: Callable[[int], None]) -> Iterator[list[str]]:
    """Note the name of each file that is read, and call `before` with its number first."""
    noted: list[str] = []
    real_read = Folder.read

    def read(folder: Folder, name: str) -> bytes:
        before(len(noted))
        noted.append(name)
        return real_read(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "read", read)
        yield noted


def test_a_directory_that_is_swapped_for_ever_is_given_up(mount: Mount) -> None:
    def read(folder: Folder) -> bytes:
        mount.update()
        return folder.read("tlscert")

    with pytest.raises(IdentityError) as caught:
        read_steadily(mount.directory, read)
    assert caught.value.code is Code.IDENTITY_MISSING


def test_files_that_change_for_ever_are_given_up(tmp_path: Path) -> None:
    count = 0

    def read(_folder: Folder) -> int:
        nonlocal count
        count += 1
        return count

    with pytest.raises(IdentityError) as caught:
        read_steadily(tmp_path, read)
    assert caught.value.code is Code.IDENTITY_MIXED
    assert str(tmp_path) in str(caught.value)


def test_a_swapped_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "..data").symlink_to("..gone")
    (tmp_path / "tlscert").symlink_to("..data/tlscert")
    with pytest.raises(IdentityError) as caught:
        DestinationSource(tmp_path).read()
    assert caught.value.code is Code.IDENTITY_MISSING
    assert str(tmp_path / "tlscert") in str(caught.value)


def test_a_destination_that_is_a_link_is_read_at_once(tmp_path: Path) -> None:
    for version, files in CONTENTS.items():
        write_files(tmp_path / version, files)
    link = tmp_path / "current"
    link.symlink_to(VERSIONS[0])

    def read(folder: Folder) -> tuple[bytes, bytes]:
        certificate = folder.read("tlscert")
        (tmp_path / "new").symlink_to(VERSIONS[1])
        (tmp_path / "new").rename(link)
        return certificate, folder.read("key")

    files = CONTENTS[VERSIONS[1]]
    assert read_steadily(link, read) == (files["tlscert"], files["key"])


def test_no_descriptor_stays_open(mount: Mount) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    source = DestinationSource(mount.directory)
    source.read()
    (mount.directory / "..0" / "key").unlink()
    (mount.directory / "..0" / "identity").unlink()
    with pytest.raises(IdentityError):
        source.read()
    with pytest.raises(IdentityError):
        DestinationSource(mount.directory / "absent").read()
    assert descriptors() == before


def test_a_directory_that_may_only_be_searched_is_read(mount: Mount) -> None:
    """Of a directory's rights only `x` is needed, which some operators give to readers alone."""
    (mount.directory / "..0").chmod(0o111)
    mount.directory.chmod(0o111)
    assert version_of(DestinationSource(mount.directory).read()) == VERSIONS[0]

"""Certificate files that the operator names one by one."""

from pathlib import Path

import pytest
from identities import Cluster, certificate_pem, key_pem, make_certificate, make_key

from dbproxy.errors import Code, ConfigError
from dbproxy.identity import read_certificates, read_key_pair

KEY = make_key()


@pytest.fixture
def files(tmp_path: Path, cluster: Cluster) -> tuple[Path, Path]:
    """A certificate with its chain, and its key."""
    leaf = make_certificate(cluster.host, KEY)
    (tmp_path / "server.crt").write_bytes(certificate_pem(leaf, cluster.host.certificate))
    (tmp_path / "server.key").write_bytes(key_pem(KEY))
    return tmp_path / "server.crt", tmp_path / "server.key"


def test_certificates_are_read_in_order(files: tuple[Path, Path], cluster: Cluster) -> None:
    _, authority = read_certificates(files[0])
    assert authority == cluster.host.certificate


def test_a_pair_is_read_with_the_chain(files: tuple[Path, Path], cluster: Cluster) -> None:
    leaf, chain, key = read_key_pair(*files)
    assert leaf.public_key() == key.public_key() == KEY.public_key()
    assert chain == (cluster.host.certificate,)


def test_a_key_of_another_certificate_is_refused(files: tuple[Path, Path]) -> None:
    files[1].write_bytes(key_pem(make_key()))
    with pytest.raises(ConfigError) as caught:
        read_key_pair(*files)
    assert str(caught.value) == (
        f"the key in {files[1]} does not belong to the certificate in {files[0]}"
    )


@pytest.mark.parametrize("index", [0, 1], ids=["certificate", "key"])
def test_a_missing_file_is_named(files: tuple[Path, Path], index: int) -> None:
    files[index].unlink()
    with pytest.raises(ConfigError) as caught:
        read_key_pair(*files)
    assert str(caught.value) == f"{files[index]} cannot be read: No such file or directory"


@pytest.mark.parametrize("index", [0, 1], ids=["certificate", "key"])
def test_a_damaged_file_is_named(files: tuple[Path, Path], index: int) -> None:
    files[index].write_bytes(files[index].read_bytes()[:50])
    with pytest.raises(ConfigError) as caught:
        read_key_pair(*files)
    assert str(caught.value) == f"{files[index]} is truncated"
    assert caught.value.code is Code.FILE_UNUSABLE


@pytest.mark.parametrize("index", [0, 1], ids=["certificate", "key"])
def test_a_directory_in_the_place_of_a_file_is_named(files: tuple[Path, Path], index: int) -> None:
    files[index].unlink()
    files[index].mkdir()
    with pytest.raises(ConfigError) as caught:
        read_key_pair(*files)
    assert str(caught.value) == f"{files[index]} is a directory, not a regular file"

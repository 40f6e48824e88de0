"""One cluster for all tests: its authorities never change."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from identities import Cluster, make_cluster, write_destination


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture(scope="session")
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def destination(tmp_path: Path, cluster: Cluster) -> Path:
    """A destination with a good identity in it."""
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster)
    return directory

"""How hypothesis behaves in the unit tests, and what tests of several parts need."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from hypothesis import settings
from identities import Cluster, make_cluster, write_destination
from loopback import no_descriptor_left
from tls_peers import make_credentials, server_context

# The same examples in each run, and not too many.
settings.register_profile("unit", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("unit")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """One cluster for all tests: its authorities never change."""
    return make_cluster()


@pytest.fixture(scope="session")
def rsa_key() -> RSAPrivateKey:
    """A key for all tests: to make one takes long."""
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def upstream_context(cluster: Cluster) -> ssl.SSLContext:
    """What a stand-in for a Teleport Proxy shows: a certificate of the Host CA."""
    credentials = make_credentials(cluster.host, "localhost", "127.0.0.1")
    return server_context(credentials, alpn=["teleport-postgres"])


@pytest.fixture
def no_descriptor_may_be_left() -> Iterator[None]:
    """Fails the test when more descriptors are open after it than before."""
    with no_descriptor_left():
        yield


@pytest.fixture
def destination(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A destination with a good identity for `example-server`, and a state directory beside it."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    write_destination(tmp_path / "machine-id", cluster)
    return tmp_path / "machine-id"

"""A web authority and an identity for all tests of the upstream."""

from collections.abc import Iterator

import pytest
from identities import Authority, Cluster, make_authority, write_destination
from loopback import no_descriptor_left
from tls_peers import Credentials, make_credentials

from dbproxy.identity import Identity, read_destination


@pytest.fixture(scope="session")
def web_authority() -> Authority:
    """Signs the certificates of Teleport Proxies; the identity does not know it."""
    return make_authority("web")


@pytest.fixture(scope="session")
def localhost(web_authority: Authority) -> Credentials:
    """What a Teleport Proxy on loopback shows."""
    return make_credentials(web_authority, "localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Identity:
    directory = tmp_path_factory.mktemp("machine-id")
    write_destination(directory, cluster)
    return read_destination(directory)


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield

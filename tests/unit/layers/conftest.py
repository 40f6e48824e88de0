"""One authority and one server for all tests of the layers."""

import pytest
from identities import Authority, make_authority
from tls_peers import Credentials, make_credentials


@pytest.fixture(scope="session")
def authority() -> Authority:
    return make_authority("example")


@pytest.fixture(scope="session")
def localhost(authority: Authority) -> Credentials:
    """What a server called `localhost` shows."""
    return make_credentials(authority, "localhost")

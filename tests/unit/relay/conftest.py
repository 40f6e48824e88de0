"""One server certificate for all tests of the relay."""

import pytest
from identities import make_authority
from tls_peers import Credentials, make_credentials


@pytest.fixture(scope="session")
def localhost() -> Credentials:
    """What a server called `localhost` shows."""
    return make_credentials(make_authority("example"), "localhost")

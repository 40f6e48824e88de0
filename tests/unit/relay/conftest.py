"""One server certificate for all tests of the relay, and what must hold in all of them."""

import pytest
from identities import make_authority
from tls_peers import Credentials, make_credentials

from dbproxy.relay.reactor import Reactor, Turn


@pytest.fixture(autouse=True)
def _one_turn_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks twice for the same turn would have more of them than others."""
    ask = Reactor.ask

    def ask_once(self: Reactor, turn: Turn) -> None:
        assert turn not in self._turns
        ask(self, turn)

    monkeypatch.setattr(Reactor, "ask", ask_once)


@pytest.fixture(scope="session")
def localhost() -> Credentials:
    """What a server called `localhost` shows."""
    return make_credentials(make_authority("example"), "localhost")

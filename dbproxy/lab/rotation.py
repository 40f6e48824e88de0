"""The phases of a CA rotation, as Teleport's lib/auth/rotate.go has them.

A rotation replaces an authority without a moment at which somebody shows a certificate that others
do not trust yet: first everybody learns to trust the new one, then clients get certificates of it,
then servers do, and only then the old one is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Final

__all__ = ["FORCES_RENEWAL", "NEXT_PHASES", "Phase"]


@unique
class Phase(StrEnum):
    """Where a rotation stands."""

    STANDBY = "standby"
    """No rotation: one authority of each kind."""
    INIT = "init"
    """There is a new authority for everybody to trust; nobody has a certificate of it yet."""
    UPDATE_CLIENTS = "update_clients"
    """The new authority issues: clients get new certificates, servers still show the old ones."""
    UPDATE_SERVERS = "update_servers"
    """Servers show certificates of the new authority; the old one is still trusted."""
    ROLLBACK = "rollback"
    """Back to the old authority for everybody; the new one is still trusted."""


NEXT_PHASES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.STANDBY: frozenset({Phase.INIT}),
    Phase.INIT: frozenset({Phase.UPDATE_CLIENTS, Phase.ROLLBACK}),
    Phase.UPDATE_CLIENTS: frozenset({Phase.UPDATE_SERVERS, Phase.ROLLBACK}),
    Phase.UPDATE_SERVERS: frozenset({Phase.STANDBY, Phase.ROLLBACK}),
    Phase.ROLLBACK: frozenset({Phase.STANDBY}),
}
"""Where each phase may lead."""

FORCES_RENEWAL: Final = frozenset({Phase.STANDBY, Phase.UPDATE_CLIENTS, Phase.ROLLBACK})
"""The phases at whose beginning tbot renews at once (lib/tbot/ca_rotation.go)."""

"""Every tunnel of a tbot configuration in one process."""

from dbproxy.fleet.fleet import Fleet
from dbproxy.fleet.tunnels import Tunnel, tunnels_of

__all__ = ["Fleet", "Tunnel", "tunnels_of"]

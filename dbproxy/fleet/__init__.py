"""Every tunnel of a tbot configuration in one process."""

from dbproxy.fleet.fleet import Fleet
from dbproxy.fleet.one import settings_of_tunnel
from dbproxy.fleet.tunnels import Tunnel, tunnels_of

__all__ = ["Fleet", "Tunnel", "settings_of_tunnel", "tunnels_of"]

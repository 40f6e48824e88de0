"""A local port for databases behind Teleport, with the certificates that tbot keeps fresh.

    settings = Settings(destination_dir=Path("/opt/machine-id"), proxy="teleport.example.com:443")
    async with open_database_proxy(settings) as started:
        ...  # connect to started.address

See `DatabaseProxy` for more control.
"""

from dbproxy._version import __version__
from dbproxy.errors import (
    ClientError,
    Code,
    ConfigError,
    DBProxyError,
    IdentityError,
    ListenError,
    UpstreamError,
    UsageError,
)
from dbproxy.events import ConnectionRecord, Event
from dbproxy.proxy import DatabaseProxy, Started, open_database_proxy
from dbproxy.settings import Mode, Settings

__all__ = [
    "ClientError",
    "Code",
    "ConfigError",
    "ConnectionRecord",
    "DBProxyError",
    "DatabaseProxy",
    "Event",
    "IdentityError",
    "ListenError",
    "Mode",
    "Settings",
    "Started",
    "UpstreamError",
    "UsageError",
    "__version__",
    "open_database_proxy",
]

"""A local port for databases behind Teleport, with the certificates that tbot keeps fresh.

    settings = Settings(destination_dir=Path("/opt/machine-id"), proxy="teleport.example.com:443")
    async with open_database_proxy(settings) as started:
        ...  # connect to started.address

See `DatabaseProxy` for more control.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dbproxy._version import __version__

if TYPE_CHECKING:
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

_HOMES = {
    "ConnectionRecord": "dbproxy.events",
    "Event": "dbproxy.events",
    "DatabaseProxy": "dbproxy.proxy",
    "Started": "dbproxy.proxy",
    "open_database_proxy": "dbproxy.proxy",
    "Mode": "dbproxy.settings",
    "Settings": "dbproxy.settings",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that the command line starts at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "dbproxy.errors")), name)

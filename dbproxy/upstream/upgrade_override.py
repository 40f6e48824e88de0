"""Who decides about the connection upgrade before any test: the setting, then the environment.

The variables are Teleport's own, with its own way of reading them, odd as it is: an address is
looked for anywhere in a word, so `teleport.example.com:443=yes` also decides for `example.com:443`
(Teleport, `api/client/alpn_conn_upgrade.go`).
"""

import re
from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

from dbproxy.upstream.address import ProxyAddress

__all__ = ["UpgradeMode", "override_named", "upgrade_mode", "upgrade_override"]

_VARIABLE: Final = "TELEPORT_TLS_ROUTING_CONN_UPGRADE"
_MODE_VARIABLE: Final = "TELEPORT_TLS_ROUTING_CONN_UPGRADE_MODE"
_SEPARATORS: Final = re.compile("[;,]")
_TRUE: Final = frozenset({"yes", "yeah", "y", "true", "1", "on"})
"""The words that Teleport takes for true (`api/utils`); all others are false here."""


@unique
class UpgradeMode(Enum):
    """Which kinds of connection upgrade are offered."""

    BOTH = "both"
    """Both, and the Teleport Proxy chooses."""
    WEBSOCKET = "websocket"
    """Bytes in WebSocket frames; Teleport 15.1 and later."""
    LEGACY = "legacy"
    """Bytes as they are; Teleport 10 to 18."""


def upgrade_override(
    setting: str, environ: Mapping[str, str], address: ProxyAddress
) -> bool | None:
    """Whether to upgrade connections to `address`; None when only the test can tell.

    Args:
        setting: `auto`, `always` or `never`; the latter two decide by themselves.
        environ: The environment variables.
        address: The one that is dialled.
    """
    if setting != "auto":
        return setting == "always"
    text = environ.get(_VARIABLE, "")
    return _decision(text, f"{address}=") if text else None


def override_named(setting: str) -> str:
    """What `upgrade_override` has decided by, in words."""
    return f"--connection-upgrade={setting}" if setting != "auto" else _VARIABLE


def _decision(text: str, key: str) -> bool:
    """What the first word for the address says, else the last word without any address."""
    default = False
    for word in filter(None, _SEPARATORS.split(text)):
        if "=" not in word:
            default = _is_true(word)
        elif key in word:
            return _is_true(word.partition(key)[2])
    return default


def _is_true(word: str) -> bool:
    return word.lower() in _TRUE


def upgrade_mode(environ: Mapping[str, str]) -> UpgradeMode:
    """Which kinds to offer.

    Teleport reads `legacy`, and in its versions 15.1 to 17.2 read another word for WebSocket only;
    any word but these two means the default.
    """
    word = environ.get(_MODE_VARIABLE, "").lower()
    return UpgradeMode(word) if word in {"websocket", "legacy"} else UpgradeMode.BOTH

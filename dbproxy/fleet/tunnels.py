"""From the `database-tunnel` services of tbot's configuration to the settings of a proxy for each.

tbot makes the certificate of a tunnel itself and keeps it in memory; dbproxy takes certificates
from where tbot writes them. So a tunnel here needs a `database` output for the same service, in the
same file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import yaml

from dbproxy.downstream import listen_address
from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity import DestinationEntry, TbotConfig, TunnelService, locate
from dbproxy.identity.tbot_words import in_one_sentence
from dbproxy.settings import Settings

__all__ = ["Tunnel", "settings_for", "tunnels_of"]

_EXAMPLE: Final = {
    "type": "database-tunnel",
    "listen": "tcp://127.0.0.1:5432",
    "service": "example-server",
    "username": "alice",
    "database": "example",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """One tunnel to keep open.

    Attributes:
        name: What logs call it: its name in the file, or else its service; unlike all others.
        listen: The URI to listen on.
        service: The Teleport database service.
        username: The database user that it is for, if the file says so.
        database: The database name that it is for, likewise.
    """

    name: str
    listen: str
    service: str
    username: str | None
    database: str | None


def tunnels_of(config: TbotConfig, *, anywhere: bool = False) -> tuple[Tunnel, ...]:
    """The tunnels of a configuration, in its order.

    Args:
        config: tbot's configuration.
        anywhere: Whether they may listen on addresses that other hosts can reach.

    Raises:
        ConfigError: `config-malformed`: a `listen` is no URI to listen on.
        UsageError: There is no tunnel, or one listens where other hosts can reach it.
    """
    described = [
        (entry, entry.service, entry.tunnel)
        for entry in config.entries
        if entry.tunnel is not None and entry.service is not None
    ]
    if not described:
        raise UsageError(
            f"{config.path} has no service of type database-tunnel"
            f"{in_one_sentence(config.unknown_words)}",
            next_step=f"Add one to its `services`: {_yaml(_EXAMPLE)}",
        )
    for _entry, _service, tunnel in described:
        _check_listen(tunnel, anywhere=anywhere)
    counts = Counter(tunnel.name or service for _entry, service, tunnel in described)
    return tuple(
        _tunnel(entry, service, tunnel, ambiguous=counts[tunnel.name or service] > 1)
        for entry, service, tunnel in described
    )


def settings_for(tunnel: Tunnel, base: Settings, config: TbotConfig) -> Settings:
    """The settings of the proxy behind a tunnel.

    Its identity comes from the `database` output for its service, the one for its user and database
    if there are several; without any, from the directory or the files that `base` names.

    Raises:
        ConfigError: `destination-not-found`: there is neither.
    """
    return replace(
        _with_identity(tunnel, base, config),
        service=tunnel.service,
        db_user=tunnel.username,
        db_name=tunnel.database,
        listen=tunnel.listen,
        port=0,
        tunnel=True,
    )


def _tunnel(
    entry: DestinationEntry, service: str, tunnel: TunnelService, *, ambiguous: bool
) -> Tunnel:
    name = tunnel.name or service
    return Tunnel(
        name=f"{name} ({tunnel.listen})" if ambiguous else name,
        listen=tunnel.listen,
        service=service,
        username=entry.username,
        database=entry.database,
    )


def _check_listen(tunnel: TunnelService, *, anywhere: bool) -> None:
    try:
        listen_address(tunnel.listen, 0, anywhere=True)
    except UsageError as error:
        raise ConfigError(
            Code.CONFIG_MALFORMED,
            f"{tunnel.place}: must be tcp://HOST:PORT or unix:///PATH, not {tunnel.listen!r}",
        ) from error
    try:
        listen_address(tunnel.listen, 0, anywhere=anywhere)
    except UsageError as error:
        what = f"{tunnel.place}: {error.message.removeprefix('--listen ')}"
        raise UsageError(what, next_step=error.next_step) from error


def _with_identity(tunnel: Tunnel, base: Settings, config: TbotConfig) -> Settings:
    try:
        found = locate(
            destination_dir=None,
            config=config,
            service=tunnel.service,
            username=tunnel.username,
            database=tunnel.database,
        )
    except ConfigError as error:
        if base.names_identity:
            return base
        raise ConfigError(
            error.code, error.message, next_step=_next_step(tunnel, config)
        ) from error
    none_named = replace(base, identity_file=None, cert=None, key=None, ca=None)
    return replace(none_named, destination_dir=found.directory)


def _next_step(tunnel: Tunnel, config: TbotConfig) -> str:
    outputs = (entry for entry in config.entries if entry.directory is not None)
    if any(entry.service == tunnel.service for entry in outputs):
        return (
            "Let the `username` and `database` of one output be those of the tunnel, so that it"
            " is clear which one is for it."
        )
    output = {
        "type": "database",
        "service": tunnel.service,
        "username": tunnel.username,
        "database": tunnel.database,
        "destination": {"type": "directory", "path": "/opt/machine-id"},
    }
    known = {key: value for key, value in output.items() if value is not None}
    return (
        "dbproxy issues no certificates: let tbot write one for this tunnel, with an output for"
        f" its service, user and database, in a directory of its own: {_yaml(known)}"
    )


def _yaml(entry: Mapping[str, object]) -> str:
    """One element of a list, in one line, to paste."""
    text = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=10_000)
    return f"- {str(text).strip()}"

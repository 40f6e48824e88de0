"""The tunnel of a tbot configuration that somebody means by a name."""

from dbproxy.errors import UsageError
from dbproxy.fleet.tunnels import Tunnel, settings_for, tunnels_of
from dbproxy.identity import TbotConfig, load_tbot_config
from dbproxy.settings import Mode, Settings

__all__ = ["settings_of_tunnel"]


def settings_of_tunnel(settings: Settings) -> Settings:
    """The settings of the tunnel that `settings.service` names; as they are where there is none.

    A tunnel is meant when nothing says where to listen, and the tbot configuration has one of that
    name or, failing that, for that service; without a name, when it has just one.

    Raises:
        ConfigError: The configuration, or the tunnel in it, cannot be used.
        UsageError: Several tunnels are for the service, or it listens where others can reach it.
    """
    elsewhere = settings.port or settings.listen is not None or settings.mode is Mode.TERMINATE
    if elsewhere or settings.config is None:
        return settings
    config = load_tbot_config(settings.config)
    if not any(entry.tunnel is not None for entry in config.entries):
        return settings
    found = _meant(settings, config)
    return settings if found is None else settings_for(found, settings, config)


def _meant(settings: Settings, config: TbotConfig) -> Tunnel | None:
    tunnels = tunnels_of(config, anywhere=settings.unsafe_listen_anywhere)
    name = settings.service
    if name is None:
        return tunnels[0] if len(tunnels) == 1 else None
    named = [tunnel for tunnel in tunnels if tunnel.name == name]
    fitting = named or [tunnel for tunnel in tunnels if tunnel.service == name]
    if len(fitting) > 1:
        names = ", ".join(tunnel.name for tunnel in fitting)
        raise UsageError(
            f"{config.path} has several tunnels for {name}: {names}",
            next_step="Name one of them instead of the service, or give --port or --listen.",
        )
    return fitting[0] if fitting else None

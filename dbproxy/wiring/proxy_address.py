"""Which address the operator gave for the Teleport Proxy."""

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity import TbotConfig
from dbproxy.identity.tbot_words import in_one_sentence
from dbproxy.settings import Settings
from dbproxy.upstream import ConfiguredAddress

__all__ = ["proxy_address"]


def proxy_address(settings: Settings, config: TbotConfig | None) -> ConfiguredAddress:
    """The address of the Teleport Proxy, from the settings or else from tbot's configuration.

    Raises:
        UsageError: It is not known, or what the settings name is no address.
        ConfigError: `config-malformed`: what the configuration names is no address.
    """
    if settings.proxy is not None:
        return ConfiguredAddress.parse(settings.proxy)
    text = config.proxy_server or config.auth_server if config is not None else None
    if config is None or text is None:
        raise UsageError(
            f"the address of the Teleport Proxy is not known{_misspelt_proxy(config)}",
            next_step="Give it with --proxy=HOST:PORT, or with --config a tbot configuration"
            " that has proxy_server or auth_server.",
        )
    is_auth_server = not config.proxy_server
    key = "auth_server" if is_auth_server else "proxy_server"
    try:
        return ConfiguredAddress.parse(
            text, named_by=f"{key} in {config.path}", may_be_auth_service=is_auth_server
        )
    except UsageError as error:
        raise ConfigError(
            Code.CONFIG_MALFORMED,
            f"{config.proxy_place}: {error.message}",
            next_step="Correct it there (HOST:PORT), or give the address with --proxy.",
        ) from error


def _misspelt_proxy(config: TbotConfig | None) -> str:
    if config is None:
        return ""
    meant = ("proxy_server", "auth_server")
    words = tuple(word for word in config.unknown_words if word.similar in meant)
    return f"; in {config.path}, {in_one_sentence(words)[2:]}" if words else ""

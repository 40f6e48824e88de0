"""Where the identity is read from."""

from datetime import timedelta

from dbproxy.events import Subscriber
from dbproxy.identity import IdentityStore, TbotConfig
from dbproxy.identity.choose_source import choose_source
from dbproxy.settings import Settings

__all__ = ["find_identity"]


def find_identity(
    settings: Settings, config: TbotConfig | None, publish: Subscriber
) -> tuple[IdentityStore, timedelta | None]:
    """The store, which has read nothing yet, and how often tbot renews, if that is known.

    Raises:
        UsageError: Nothing says where the identity is.
        ConfigError: `destination-not-found`, `destination-used-twice`.
    """
    chosen = choose_source(settings, config)
    store = IdentityStore(chosen.source, service=settings.service, publish=publish)
    return store, chosen.lifetime.renewal_interval

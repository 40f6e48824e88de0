"""The test whether connections to an address need an upgrade.

A TLS handshake that offers only an ALPN protocol which every Teleport Proxy knows tells who ended
it: a Teleport Proxy chooses that protocol, while a balancer of layer 7 refuses it or ignores it.
What else may go wrong says nothing about balancers, and then no upgrade is assumed, as Teleport's
own tools do (`api/client/alpn_conn_upgrade.go`).
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from dbproxy.errors import DBProxyError
from dbproxy.layers import LayerError, TLSError

__all__ = ["UPGRADE_TEST_ALPN", "DialTLS", "UpgradeNeed", "interpret_upgrade_test", "needs_upgrade"]

UPGRADE_TEST_ALPN: Final = "teleport-reversetunnel"

DialTLS: TypeAlias = Callable[[Sequence[str]], Awaitable[str]]
"""Completes a TLS handshake that offers these ALPN protocols, on the way that connections take,
closes it, and returns the protocol that was chosen; empty for none. Raises what connecting raises.
"""

_TEST_TIMEOUT: Final = 5.0
"""Seconds, as in Teleport's own tools."""
_UNADVERTISED: Final = "bad extension"
"""OpenSSL's reason where the server chose a protocol that was not offered; versions before 3.4 do
not notice, and the choice is seen afterwards."""


@dataclass(frozen=True, slots=True)
class UpgradeNeed:
    """What the test has found.

    Attributes:
        required: Whether connections need an upgrade.
        reason: Why so: the end of a sentence that begins with "the server".
        certain: Whether the server has answered the question; otherwise no upgrade is assumed.
    """

    required: bool
    reason: str
    certain: bool = True


async def needs_upgrade(dial: DialTLS) -> UpgradeNeed:
    """Make the test; it takes no longer than five seconds.

    Cancelled, it leaves behind what `dial` leaves.
    """
    try:
        with trio.fail_after(_TEST_TIMEOUT):
            chosen = await dial([UPGRADE_TEST_ALPN])
    except trio.TooSlowError:
        return UpgradeNeed(
            required=False, reason=f"gave no answer within {_TEST_TIMEOUT:g} s", certain=False
        )
    except (DBProxyError, LayerError, OSError, trio.BrokenResourceError) as error:
        return interpret_upgrade_test(error)
    return interpret_upgrade_test(chosen)


def interpret_upgrade_test(outcome: str | Exception) -> UpgradeNeed:
    """What the outcome of the handshake means.

    Args:
        outcome: The ALPN protocol that was chosen, empty for none; or how the handshake failed.
    """
    if isinstance(outcome, Exception):
        return _interpret_failure(outcome)
    if not outcome:
        return UpgradeNeed(required=True, reason="completed the TLS handshake without any ALPN")
    if outcome != UPGRADE_TEST_ALPN:
        reason = f"chose the ALPN protocol {outcome!r}, which was not offered"
        return UpgradeNeed(required=True, reason=reason)
    return UpgradeNeed(required=False, reason="knows Teleport's ALPN protocols")


def _interpret_failure(error: Exception) -> UpgradeNeed:
    for cause in _causes(error):
        if isinstance(cause, TLSError) and cause.refuses_alpn:
            reason = "refused Teleport's ALPN protocol with the alert no_application_protocol"
            return UpgradeNeed(required=True, reason=reason)
        if isinstance(cause, TLSError) and cause.reason == _UNADVERTISED:
            reason = "chose an ALPN protocol that was not offered"
            return UpgradeNeed(required=True, reason=reason)
    reason = f"could not be tested: {str(error) or type(error).__name__}"
    return UpgradeNeed(required=False, reason=reason, certain=False)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: dialling explains what TLS says."""
    while error is not None:
        yield error
        error = error.__cause__

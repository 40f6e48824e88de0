"""Why the upstream did not take us: failures of the network and of TLS, put into codes and words.

TLS 1.3 hides the rejection of a client certificate: our handshake is over before the server has
judged it, and its alert arrives on the first read. And the Teleport Proxy closes without an alert
when it knows none of the ALPN values offered (Teleport, lib/srv/alpnproxy/proxy.go).
"""

import errno
from collections.abc import Iterator, Sequence
from socket import gaierror
from typing import Final

import trio

from dbproxy.errors import Code, Prospect, UpstreamError
from dbproxy.layers import LayerError, TLSError, TruncatedError
from dbproxy.relay import SilenceError
from dbproxy.upstream.judgement import Complaint
from dbproxy.upstream.recognise import recognise, speaks_tls

__all__ = [
    "alpn_not_negotiated",
    "explain_connect_failure",
    "explain_early_end",
    "explain_end_after_greeting",
    "explain_handshake_failure",
    "explain_loss",
    "not_teleport",
    "reasons_of",
]

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS}
_VANISHED: Final = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""How the system ends a connection whose peer does not acknowledge any more."""
_ALERT_VERSION: Final = "protocol version"
_REASON_VERSION: Final = "unsupported protocol"
"""OpenSSL's SSL_R_UNSUPPORTED_PROTOCOL: the server has chosen a version that we do not speak."""
_CERTIFICATE_ALERTS: Final = frozenset(
    {
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
        "access denied",
        "certificate required",
    }
)
"""The alerts that speak of the client's certificate (RFC 8446 §6.2)."""


def explain_connect_failure(
    address: object,
    error: OSError,
    *,
    peer: str = "Teleport Proxy",
    code: Code = Code.UPSTREAM_UNREACHABLE,
) -> UpstreamError:
    """The TCP connection could not be made; without a descriptor to try, that is our own limit.

    Args:
        address: Where to.
        error: What trio raised.
        peer: What is there.
        code: The problem, unless it is our own limit.
    """
    causes, reasons = list(_leaves(error)), reasons_of(error)
    if any(isinstance(cause, OSError) and cause.errno in _SHORTAGES for cause in causes):
        return UpstreamError(
            Code.TOO_MANY_FILES, f"cannot open a connection to the {peer} at {address}: {reasons}"
        )
    return UpstreamError(code, f"cannot connect to the {peer} at {address}: {reasons}")


def reasons_of(error: OSError) -> str:
    """Why a TCP connection could not be made, for all the addresses that were tried."""
    return "; ".join(dict.fromkeys(_reason(cause) for cause in _leaves(error)))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that trio has bundled: one for each resolved address that was tried."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    else:
        yield error


def _reason(error: BaseException) -> str:
    if isinstance(error, gaierror):
        return f"its name cannot be resolved ({error.strerror})"
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return "connection refused, nothing listens there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def explain_handshake_failure(
    address: object,
    error: Exception,
    *,
    complaint: Complaint | None,
    alpn: Sequence[str],
    heard: bytes,
) -> UpstreamError:
    """The outer TLS handshake failed.

    Args:
        address: The Teleport Proxy's.
        error: A `LayerError`, or what the transport raised.
        complaint: What was wrong with the server's certificate, if anything.
        alpn: The values that were offered; a server cannot have disliked them if there are none.
        heard: The first bytes that the server sent, if any.
    """
    if complaint is not None:
        return UpstreamError(
            complaint.code,
            f"the certificate that the Teleport Proxy at {address} showed {complaint}",
        )
    if (likeness := recognise(heard)) is not None:
        return not_teleport(address, likeness)
    if isinstance(error, TLSError) and error.refuses_alpn:
        return _alpn_unknown(address, alpn, "with the TLS alert no_application_protocol")
    if isinstance(error, TLSError) and error.alert in _CERTIFICATE_ALERTS:
        return _rejected(address, error.alert)
    if isinstance(error, TLSError) and _is_about_version(error):
        return UpstreamError(
            Code.UPSTREAM_TLS_TOO_OLD,
            f"the server at {address} does not speak TLS 1.2 or 1.3: {error.reason}",
        )
    if isinstance(error, TLSError) and heard and not speaks_tls(heard):
        return UpstreamError(
            Code.UPSTREAM_NOT_TELEPORT,
            f"the server at {address} does not speak TLS: its answer begins with {heard[:16]!r}",
        )
    if isinstance(error, TLSError):
        return UpstreamError(
            Code.UPSTREAM_TLS_FAILED,
            f"the TLS handshake with the Teleport Proxy at {address} failed: {error.reason}",
        )
    if (vanished := _how_vanished(error)) is not None:
        return UpstreamError(
            Code.UPSTREAM_UNREACHABLE,
            f"the server at {address} {vanished}, in the middle of the TLS handshake",
        )
    was_reset = isinstance(error, trio.BrokenResourceError)
    if heard or was_reset or not alpn:
        how = "reset" if was_reset else "closed"
        when = "in the middle of" if heard else "before it answered"
        return UpstreamError(
            Code.UPSTREAM_TLS_FAILED,
            f"the server at {address} {how} the connection {when} the TLS handshake",
            # What is being restarted ends in the first ways; another kind of server in the last.
            prospect=Prospect.SOON if heard or was_reset else Prospect.ONCE,
        )
    return UpstreamError(
        Code.ALPN_NOT_SUPPORTED,
        f"the server at {address} closed the connection during the TLS handshake without an alert,"
        " as a Teleport Proxy does that knows none of the ALPN protocols"
        f" {', '.join(alpn)}",
        next_step="Check that the address is the web address of a Teleport Proxy; then that TLS"
        " routing is on in the cluster and its version serves this database protocol.",
    )


def _is_about_version(error: TLSError) -> bool:
    return error.alert == _ALERT_VERSION or error.reason == _REASON_VERSION


def not_teleport(address: object, likeness: str) -> UpstreamError:
    """Something else answers at the address.

    Args:
        address: The Teleport Proxy's, or so we thought.
        likeness: What it is like, such as `an SSH server`.
    """
    return UpstreamError(
        Code.UPSTREAM_NOT_TELEPORT,
        f"what answers at {address} looks like {likeness}, not like a Teleport Proxy",
    )


def _alpn_unknown(address: object, alpn: Sequence[str], how: str) -> UpstreamError:
    return UpstreamError(
        Code.ALPN_NOT_SUPPORTED,
        f"the Teleport Proxy at {address} refused the ALPN protocols {', '.join(alpn)} {how}",
    )


def alpn_not_negotiated(address: object, alpn: Sequence[str]) -> UpstreamError:
    """The handshake succeeded, but the server chose no ALPN protocol."""
    return UpstreamError(
        Code.ALPN_NOT_SUPPORTED,
        f"the server at {address} completed the TLS handshake but chose none of the ALPN protocols"
        f" {', '.join(alpn)}",
    )


def _rejected(address: object, alert: str | None) -> UpstreamError:
    return UpstreamError(
        Code.CERTIFICATE_REJECTED,
        f"the Teleport Proxy at {address} rejected our client certificate with the TLS alert"
        f" {str(alert).replace(' ', '_')}",
    )


def explain_loss(address: object, error: Exception) -> UpstreamError:
    """The upstream failed in the middle of a connection."""
    if isinstance(error, SilenceError):
        return _silent(address, error)
    if isinstance(error, trio.BrokenResourceError):
        how = _how_vanished(error) or "reset the connection"
    elif isinstance(error, TruncatedError):
        how = "closed the connection without saying that this is the end"
    else:
        how = f"broke off: {error}"
    return UpstreamError(Code.UPSTREAM_LOST, f"the Teleport Proxy at {address} {how}")


def _silent(address: object, error: SilenceError) -> UpstreamError:
    return UpstreamError(
        Code.UPSTREAM_SILENT,
        f"the Teleport Proxy at {address} has been silent for {error.limit:.1f} s, although it had"
        " sent pings",
    )


def _how_vanished(error: Exception) -> str | None:
    """How the system gave up a peer that does not acknowledge any more; None for other failures."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _VANISHED:
        return f"cannot be reached any more ({reasons_of(cause)})"
    return None


def explain_early_end(address: object, error: Exception | None) -> UpstreamError:
    """The upstream ended before its first byte.

    Args:
        address: The Teleport Proxy's.
        error: How receiving failed; None for a clean end.
    """
    if isinstance(error, TLSError) and error.alert in _CERTIFICATE_ALERTS:
        return _rejected(address, error.alert)
    if isinstance(error, LayerError) and not isinstance(error, TruncatedError):
        return UpstreamError(
            Code.UPSTREAM_PROTOCOL_ERROR,
            f"the Teleport Proxy at {address} broke the protocol: {error}",
        )
    if isinstance(error, SilenceError):
        return _silent(address, error)
    if error is not None and (vanished := _how_vanished(error)) is not None:
        return UpstreamError(
            Code.UPSTREAM_UNREACHABLE, f"the Teleport Proxy at {address} {vanished}"
        )
    reset = isinstance(error, trio.BrokenResourceError)
    return UpstreamError(
        Code.UPSTREAM_CLOSED_EARLY,
        f"the Teleport Proxy at {address} {'reset' if reset else 'closed'} the connection before it"
        " sent anything",
        prospect=Prospect.SOON if reset else Prospect.ONCE,
    )


def explain_end_after_greeting(address: object, error: Exception | None) -> UpstreamError:
    """The upstream ended when it had greeted, and before it answered the client's login.

    Args:
        address: The Teleport Proxy's.
        error: How receiving failed; None for a clean end.
    """
    if isinstance(error, LayerError | SilenceError) and not isinstance(error, TruncatedError):
        return explain_early_end(address, error)
    how = "reset" if isinstance(error, trio.BrokenResourceError) else "closed"
    return UpstreamError(
        Code.UPSTREAM_CLOSED_EARLY,
        f"the Teleport Proxy at {address} {how} the connection in the middle of the login",
    )

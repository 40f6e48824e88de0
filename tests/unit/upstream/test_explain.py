"""Failures of the network and of TLS, put into codes and words."""

import errno
import os
import socket

import pytest
import trio

from dbproxy.errors import Code, Prospect
from dbproxy.layers import PingError, TLSError, TruncatedError
from dbproxy.relay import SilenceError
from dbproxy.upstream import ProxyAddress
from dbproxy.upstream.explain import (
    alpn_not_negotiated,
    explain_connect_failure,
    explain_early_end,
    explain_handshake_failure,
    explain_loss,
)
from dbproxy.upstream.judgement import Complaint

ADDRESS = ProxyAddress("teleport.example.com", 443)
ALPN = ("teleport-postgres-ping", "teleport-postgres")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
UNREACHABLE = OSError(errno.ENETUNREACH, "Network is unreachable")
TRUNCATED = TruncatedError("the connection ended without a TLS close_notify")
RESET = trio.BrokenResourceError("reset")

CERTIFICATE_ALERTS = [
    "bad certificate",
    "unsupported certificate",
    "certificate revoked",
    "certificate expired",
    "certificate unknown",
    "unknown ca",
    "access denied",
    "certificate required",
]


def alerted(alert: str | None, *, during_handshake: bool = True) -> TLSError:
    return TLSError(f"tlsv1 alert {alert}", alert=alert, during_handshake=during_handshake)


def all_attempts_failed(*errors: OSError) -> OSError:
    """What `trio.open_tcp_stream` raises when every address failed."""
    error = OSError("all attempts to connect to teleport.example.com:443 failed")
    error.__cause__ = errors[0] if len(errors) == 1 else ExceptionGroup("attempts", list(errors))
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (REFUSED, "connection refused, nothing listens there"),
        (all_attempts_failed(REFUSED), "connection refused, nothing listens there"),
        (
            all_attempts_failed(REFUSED, UNREACHABLE),
            "connection refused, nothing listens there; network is unreachable",
        ),
        (all_attempts_failed(UNREACHABLE, UNREACHABLE), "network is unreachable"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "its name cannot be resolved (Name or service not known)",
        ),
        (OSError("no words of the system"), "no words of the system"),
        (OSError(), "OSError"),
    ],
)
def test_a_connection_that_cannot_be_made_names_each_reason_once(
    error: OSError, reason: str
) -> None:
    explained = explain_connect_failure(ADDRESS, error)
    assert explained.code is Code.UPSTREAM_UNREACHABLE
    assert explained.message == (
        f"cannot connect to the Teleport Proxy at teleport.example.com:443: {reason}"
    )


def handshake(
    error: Exception, complaint: Complaint | None = None, *, heard: bytes = b""
) -> tuple[Code, str]:
    explained = explain_handshake_failure(
        ADDRESS, error, complaint=complaint, alpn=ALPN, heard=heard
    )
    return explained.code, explained.message


def test_a_complaint_about_the_certificate_goes_before_all_else() -> None:
    complaint = Complaint(Code.UPSTREAM_CERTIFICATE_EXPIRED, "(CN=proxy) has expired")
    code, message = handshake(alerted("unknown ca"), complaint, heard=b"\x16\x03\x03")
    assert code is Code.UPSTREAM_CERTIFICATE_EXPIRED
    assert message.endswith(f"the Teleport Proxy at {ADDRESS} showed (CN=proxy) has expired")


def test_an_alpn_alert_names_what_was_offered() -> None:
    code, message = handshake(alerted("no application protocol"))
    assert code is Code.ALPN_NOT_SUPPORTED
    assert "teleport-postgres-ping, teleport-postgres" in message
    assert "no_application_protocol" in message


def test_a_handshake_that_ends_without_a_byte_is_a_refusal_of_alpn() -> None:
    code, message = handshake(TRUNCATED)
    assert code is Code.ALPN_NOT_SUPPORTED
    assert "without an alert" in message


def test_a_close_without_a_word_is_not_about_alpn_if_none_was_offered() -> None:
    explained = explain_handshake_failure(ADDRESS, TRUNCATED, complaint=None, alpn=(), heard=b"")
    assert explained.code is Code.UPSTREAM_TLS_FAILED
    assert explained.message.endswith("closed the connection before it answered the TLS handshake")
    assert explained.prospect is Prospect.ONCE


@pytest.mark.parametrize(
    ("error", "heard", "words"),
    [
        (RESET, b"", "reset the connection before it answered the TLS handshake"),
        (RESET, b"\x16", "reset the connection in the middle of the TLS handshake"),
        (TRUNCATED, b"\x16\x03\x03", "closed the connection in the middle of the TLS handshake"),
    ],
)
def test_any_other_end_of_a_handshake_says_nothing_about_alpn(
    error: Exception, heard: bytes, words: str
) -> None:
    code, message = handshake(error, heard=heard)
    assert code is Code.UPSTREAM_TLS_FAILED
    assert message.endswith(words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RESET, "reset the connection"),
        (TRUNCATED, "closed the connection without saying that this is the end"),
        (PingError("bad frame"), "broke off: bad frame"),
    ],
)
def test_a_loss_in_the_middle_says_how_it_came(error: Exception, words: str) -> None:
    explained = explain_loss(ADDRESS, error)
    assert explained.code is Code.UPSTREAM_LOST
    assert explained.message == f"the Teleport Proxy at {ADDRESS} {words}"


@pytest.mark.parametrize("alert", CERTIFICATE_ALERTS)
def test_an_alert_about_our_certificate_is_named(alert: str) -> None:
    code, message = handshake(alerted(alert))
    assert code is Code.CERTIFICATE_REJECTED
    assert message.endswith(f"with the TLS alert {alert.replace(' ', '_')}")


@pytest.mark.parametrize("alert", ["handshake failure", "internal error", None])
def test_any_other_failure_gives_openssls_reason(alert: str | None) -> None:
    code, message = handshake(alerted(alert))
    assert code is Code.UPSTREAM_TLS_FAILED
    assert message.endswith(f"failed: tlsv1 alert {alert}")


def test_a_handshake_without_alpn_says_what_was_offered() -> None:
    error = alpn_not_negotiated(ADDRESS, ALPN)
    assert error.code is Code.ALPN_NOT_SUPPORTED
    assert "chose none of the ALPN protocols teleport-postgres-ping, " in error.message


@pytest.mark.parametrize("alert", CERTIFICATE_ALERTS)
def test_a_late_alert_about_our_certificate_is_a_rejection(alert: str) -> None:
    error = explain_early_end(ADDRESS, alerted(alert, during_handshake=False))
    assert error.code is Code.CERTIFICATE_REJECTED


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (None, Code.UPSTREAM_CLOSED_EARLY, "closed the connection before it sent anything"),
        (TRUNCATED, Code.UPSTREAM_CLOSED_EARLY, "closed the connection before it sent anything"),
        (RESET, Code.UPSTREAM_CLOSED_EARLY, "reset the connection before it sent anything"),
        (alerted("internal error"), Code.UPSTREAM_PROTOCOL_ERROR, "alert internal error"),
        (PingError("bad frame"), Code.UPSTREAM_PROTOCOL_ERROR, "broke the protocol: bad frame"),
    ],
)
def test_an_early_end_is_told_by_how_it_came(
    error: Exception | None, code: Code, words: str
) -> None:
    explained = explain_early_end(ADDRESS, error)
    assert explained.code is code
    assert words in explained.message
    assert "teleport.example.com:443" in explained.message


def test_silence_before_the_first_byte_is_silence_and_not_a_close() -> None:
    explained = explain_early_end(ADDRESS, SilenceError(90.0))
    assert explained.code is Code.UPSTREAM_SILENT
    assert "has been silent for 90.0 s" in explained.message


def vanished() -> trio.BrokenResourceError:
    """What trio raises where the system has given up a peer."""
    error = trio.BrokenResourceError("socket connection broken")
    error.__cause__ = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return error


def test_a_peer_that_has_vanished_has_not_reset_the_connection() -> None:
    lost, early = explain_loss(ADDRESS, vanished()), explain_early_end(ADDRESS, vanished())
    assert lost.code is Code.UPSTREAM_LOST
    assert early.code is Code.UPSTREAM_UNREACHABLE
    for error in (lost, early):
        assert error.message.endswith("cannot be reached any more (connection timed out)")
    code, message = handshake(vanished(), heard=b"\x16\x03\x03")
    assert code is Code.UPSTREAM_UNREACHABLE
    assert "cannot be reached any more (connection timed out)" in message

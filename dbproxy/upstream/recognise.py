"""What answers at the address when it is not TLS: recognised by its first bytes.

Some servers speak first (SSH, MySQL, mail), some answer a ClientHello with an error in their own
protocol (web servers, some versions of PostgreSQL). PostgreSQL mostly closes without a word,
because a ClientHello looks like a startup packet of an absurd length
(`src/backend/tcop/backend_startup.c`), so it has to be asked: `POSTGRES_QUESTION`.

Tested in `tests/unit/upstream/test_recognise.py`.
"""

import re
from typing import Final

__all__ = ["POSTGRES_QUESTION", "recognise", "recognise_answer", "speaks_tls"]

POSTGRES_QUESTION: Final = bytes.fromhex("00000008 04d2162f")
"""SSLRequest: every PostgreSQL answers with one byte, or with an error (PostgreSQL documentation,
54.7). Teleport's web port answers it, too, but never with `N`."""

_POSTGRES: Final = "a PostgreSQL server"

_LIKENESSES: Final = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), likeness)
    for pattern, likeness in (
        (rb"SSH-", "an SSH server"),
        (rb"HTTP/\d|\s*<(!doctype|html|head|\?xml)", "a web server without TLS (plain HTTP)"),
        # ErrorResponse: a length below 64 KiB, then the severity; or the text of protocol 2.
        (rb"E\0\0..S[A-Z]|EFATAL|Eunsupported frontend", _POSTGRES),
        # A packet with number 0: protocol version 10 and the server's version, or an error.
        (rb"..\0\0\x0a[0-9]+\.|..\0\0\xff.", "a MySQL or MariaDB server"),
        (rb"220[ -].*(smtp|mail)", "a mail server (SMTP)"),
        (rb"220[ -].*ftp", "an FTP server"),
        (rb"220[ -]", "a mail or FTP server"),
        (rb"\+OK", "a mail server (POP3)"),
        (rb"\* (OK|PREAUTH|BYE)", "a mail server (IMAP)"),
        (rb"-(ERR|DENIED|NOAUTH)", "a Redis server"),
        (rb"RFB \d", "a VNC server"),
        # SETTINGS, the first frame of HTTP/2 (RFC 9113 §3.4), on stream 0.
        (rb"\0\0.\x04\0\0\0\0\0", "a web server without TLS (plain HTTP/2)"),
    )
)
_TLS_RECORD: Final = re.compile(rb"[\x14-\x18]\x03[\0-\x04]", re.DOTALL)
"""Change cipher spec to heartbeat, in any version (RFC 8446 §5.1)."""


def recognise(first: bytes) -> str | None:
    """What a server looks like by the first bytes that it sent, such as `an SSH server`.

    Args:
        first: Up to some dozens of bytes; a beginning of them may do.

    Returns:
        A noun phrase; None when it speaks TLS, has said nothing, or is like nothing known.
    """
    if _TLS_RECORD.match(first):
        return None
    found = (likeness for pattern, likeness in _LIKENESSES if pattern.match(first))
    return next(found, None)


def speaks_tls(first: bytes) -> bool:
    """Whether the first bytes may be the beginning of a TLS record."""
    return bool(_TLS_RECORD.match(first.ljust(3, b"\3")[:3]))


def recognise_answer(answer: bytes) -> str | None:
    """What a server looks like by its answer to `POSTGRES_QUESTION`; None when that is unclear."""
    return _POSTGRES if answer == b"N" else recognise(answer)

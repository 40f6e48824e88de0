"""TLS as a layer: pyOpenSSL on memory BIOs.

Problem: certificates must load from memory as one consistent set (the files on disk change under
us), one TLS layer must fit inside another, and the relay wants to move many records per system
call. The standard library's `ssl` reads certificates from files only.

Choice: an OpenSSL connection on a pair of memory BIOs. Wire bytes go in whole batches; records come
out one per read.

Two facts about pyOpenSSL shape the code: it enables partial writes, so a write may take only one
record and must be repeated; and `WantReadError` is a subclass of `SSL.Error`, so it is caught
first.

Tested in `tests/unit/layers/test_tls.py` against the standard library's `ssl`.
"""

from typing import Final

from OpenSSL import SSL

from dbproxy.layers.base import ByteData, Layer, LayerError, TruncatedError
from dbproxy.layers.openssl import Records, release_buffers

__all__ = ["TLSError", "TLSLayer"]

_RECORD_SIZE: Final = 16 * 1024
"""The most that one TLS record carries (RFC 8446 §5.1), hence the most that one read returns."""

HEARD_SIZE: Final = 64
"""Enough to tell a banner, an HTTP status line or an error of a database."""

_WIRE_READ_SIZE: Final = 64 * 1024

_NO_APPLICATION_PROTOCOL: Final = "no application protocol"

_ErrorQueue = list[tuple[str, str, str]]


class TLSError(LayerError):
    """The TLS handshake or a record failed.

    Attributes:
        reason: OpenSSL's words for it.
        alert: The name of the alert that the peer sent (RFC 8446 §6), such as
            `certificate expired`, when that is why.
        during_handshake: Whether the handshake had not finished on our side.
    """

    def __init__(self, reason: str, *, alert: str | None, during_handshake: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alert = alert
        self.during_handshake = during_handshake

    @property
    def refuses_alpn(self) -> bool:
        """Whether the peer says that it knows none of the ALPN protocols (RFC 7301 §3.2)."""
        return self.alert == _NO_APPLICATION_PROTOCOL


class TLSLayer(Layer):
    """TLS over an OpenSSL connection that was made without a socket.

    Args:
        connection: With its role set (`set_connect_state` or `set_accept_state`).
    """

    __slots__ = ("_connection", "_ended", "_failure", "_handshaking", "_records", "heard")

    def __init__(self, connection: SSL.Connection) -> None:
        release_buffers(connection)
        self._connection = connection
        self._handshaking = True
        self._ended = False
        self._failure: TLSError | None = None
        self._records: Records | None = None
        self.heard = b""
        """The first bytes that the peer sent, at most `HEARD_SIZE` of them: what does it speak?"""

    @property
    def connection(self) -> SSL.Connection:
        """The OpenSSL connection, for facts about the session: certificates, version, ALPN."""
        return self._connection

    @property
    def handshaking(self) -> bool:
        return self._handshaking

    @property
    def ended(self) -> bool:
        return self._ended or self._failure is not None

    @property
    def announces_end(self) -> bool:
        """True: TLS has its close_notify (RFC 8446 §6.1)."""
        return True

    def start(self) -> None:
        self._handshake()

    def receive(self, data: ByteData) -> bytes:
        if self._failure is not None:
            raise self._failure
        if memoryview(data).nbytes:
            if len(self.heard) < HEARD_SIZE:
                self.heard += bytes(memoryview(data)[: HEARD_SIZE - len(self.heard)])
            if self._records is not None:
                self._records.give_back()
            self._connection.bio_write(data)
        if self._handshaking and not self._handshake():
            return b""
        records, self._failure = self._read_records()
        if not records and self._failure is not None:
            raise self._failure
        return records[0] if len(records) == 1 else b"".join(records)

    def _handshake(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self._failure = _tls_error(error, during_handshake=True)
            raise self._failure from error
        self._handshaking = False
        return True

    def _read_records(self) -> tuple[list[bytes], TLSError | None]:
        records: list[bytes] = []
        failure = None
        try:
            while True:
                records.append(self._connection.recv(_RECORD_SIZE))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._ended = True
        except SSL.Error as error:
            failure = _tls_error(error, during_handshake=False)
            failure.__cause__ = error
        return records, failure

    def note_result(self, result: int, *, empty: bool) -> None:
        """Take note of why `Records.open` has stopped reading.

        Args:
            result: OpenSSL's last result.
            empty: Whether nothing was read before; otherwise an error is kept until the next time.

        Raises:
            TLSError: As `receive`.
        """
        if result <= 0 and not self.records.wants_more(result):
            more, self._failure = self._read_records()  # what has ended it says so again
            assert not more  # noqa: S101 - all has been read
            self.records.give_back()  # what lies behind the end is in memory that others use
            if empty and self._failure is not None:
                raise self._failure

    @property
    def records(self) -> Records:
        """The connection's records, for who moves many of them."""
        if self._records is None:
            self._records = Records(self._connection)
        return self._records

    def receive_eof(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._ended:
            raise TruncatedError("the connection ended without a TLS close_notify")

    def send(self, data: ByteData) -> None:
        left = memoryview(data)
        while left:
            left = left[self._send_some(left) :]

    def _send_some(self, data: memoryview) -> int:
        try:
            return self._connection.send(data)
        except SSL.Error as error:
            raise _tls_error(error, during_handshake=False) from error

    def send_eof(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.WantReadError:
            return  # our close_notify is on its way; the peer's has not come yet
        except SSL.Error as error:
            raise _tls_error(error, during_handshake=self._handshaking) from error

    def outgoing(self) -> bytes:
        chunks: list[bytes] = []
        try:
            while True:
                chunks.append(self._connection.bio_read(_WIRE_READ_SIZE))
                if len(chunks[-1]) < _WIRE_READ_SIZE:
                    break
        except SSL.WantReadError:
            pass
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _tls_error(error: SSL.Error, *, during_handshake: bool) -> TLSError:
    # Some versions have a `SysCallError` for a connection that ends, with a number in its place.
    queue: _ErrorQueue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [reason for _library, _function, reason in queue if reason]
    # The first in OpenSSL's queue is the cause; those behind it are where it was noticed.
    reason = reasons[0] if reasons else "the connection was closed"
    alert = next((name for name in map(_alert_name, reasons) if name is not None), None)
    return TLSError(reason, alert=alert, during_handshake=during_handshake)


def _alert_name(reason: str) -> str | None:
    """The alert's name out of OpenSSL's reason, such as `ssl/tls alert certificate expired`."""
    _prefix, found, name = reason.partition(" alert ")
    return name if found else None

"""The few OpenSSL calls of the hot path, on buffers that are used again and again.

Problem: pyOpenSSL's methods allocate a buffer for each call and copy out of it; with many records
that is most of the time. And what OpenSSL keeps for a connection adds up: the buffers of its record
layer, and the two BIOs in memory, which never shrink, so that a connection that has once carried a
large result would hold half a megabyte until it ends.

Choice: what is called here is what pyOpenSSL's methods call, on the same connections. OpenSSL is
told to release its own buffers (`SSL_MODE_RELEASE_BUFFERS`). A large batch from the wire is read
where it lies, through a BIO on that memory, which saves a copy, too; only small ones are written
into a BIO that can grow. And the other BIO never holds more than about a record, but while bulk is
sent (`begin_bulk`): then one call encrypts many records, and the memory is given back afterwards.

`Connection._ssl`, `_into_ssl` and `_from_ssl` are pyOpenSSL's own names; they are used nowhere
else, and a test says when they change.
"""

from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

__all__ = ["SETTLED", "Records", "Scratch", "forget_errors", "release_buffers"]

SETTLED: Final = 1 << 31
"""No result of OpenSSL's: it reads less than that at once."""

_lib: Final[Any] = Binding.lib
_ffi: Final[Any] = Binding.ffi
_COPIED: Final = 2048
"""Bytes up to which a copy is cheaper than a BIO."""
_RECORD_SIZE: Final = 16 * 1024
"""The most that a record carries (RFC 8446 §5.1)."""
_BATCH_SIZE: Final = 16 * _RECORD_SIZE
"""Bytes that are encrypted at once in bulk: as many as are read at once."""
_RECORD_ROOM: Final = _RECORD_SIZE + 512
"""More than any record takes on the wire, and a word of OpenSSL's own with it."""
_OVERHEAD: Final = 22
"""Bytes around what a record of TLS 1.3 carries: header, content type, tag (RFC 8446 §5.2)."""
_HAVE_THAT_OVERHEAD: Final = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}
"""Cipher suites of TLS 1.3 whose tag has 16 bytes."""
_ssl_read: Final[Any] = _lib.SSL_read
_ssl_write: Final[Any] = _lib.SSL_write
_bio_read: Final[Any] = _lib.BIO_read
_bio_write: Final[Any] = _lib.BIO_write
_bio_pending: Final[Any] = _lib.BIO_get_mem_data
"""Returns how many bytes are in a BIO in memory."""
_nowhere: Final[Any] = _ffi.new("char **")
"""Where it puts their address, which nobody needs."""


class Scratch:
    """A buffer that both Python and OpenSSL see.

    Args:
        size: In bytes.
    """

    __slots__ = ("pointer", "size", "view")

    def __init__(self, size: int) -> None:
        memory = bytearray(size)
        self.size = size
        self.view = memoryview(memory)
        self.pointer: Any = _ffi.from_buffer("char[]", memory)


def forget_errors() -> None:
    """Clear OpenSSL's queue of errors; whoever lets an error pass calls it.

    A thread has one for all its connections: what stays there is told by the next call, of whatever
    connection.
    """
    _lib.ERR_clear_error()


def release_buffers(connection: SSL.Connection) -> None:
    """Let a connection keep no buffers while it is idle; call it before the handshake.

    OpenSSL looks at the mode when it makes the record layer for a new key.
    """
    _lib.SSL_set_mode(connection._ssl, _lib.SSL_MODE_RELEASE_BUFFERS)  # noqa: SLF001 - see above


class Records:
    """Moves bytes in and out of a connection without a socket whose handshake is over.

    Everything that was received before must have been read; `give_back` comes before anybody else
    writes what is received into the connection.

    Args:
        connection: Made without a socket.
    """

    __slots__ = (
        "_batch",
        "_connection",
        "_drained",
        "_from",
        "_grows",
        "_into",
        "_overhead",
        "_ssl",
    )

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self._ssl: Any = connection._ssl  # noqa: SLF001 - see above
        # A write takes all records at once: the BIO behind it has no limit.
        _lib.SSL_clear_mode(self._ssl, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        # The BIO in use has grown during the handshake. What it still holds is moved.
        self._from: Any = _growing_bio()
        if size := _bio_pending(connection._from_ssl, _nowhere):  # noqa: SLF001
            _bio_write(self._from, connection.bio_read(size), size)
        self._into: Any = _growing_bio()
        self._grows = True
        self._batch = _RECORD_SIZE
        self._drained = False  # whether OpenSSL has given out all that it has got
        known = connection.get_cipher_name() in _HAVE_THAT_OVERHEAD
        self._overhead = _OVERHEAD if known else 0
        self._use_bios()

    def _use_bios(self) -> None:
        """OpenSSL owns them from here on, and frees those that it had before."""
        _lib.SSL_set_bio(self._ssl, self._into, self._from)
        self._connection._into_ssl = self._into  # noqa: SLF001
        self._connection._from_ssl = self._from  # noqa: SLF001

    def begin_bulk(self) -> None:
        """From now on encrypt many records at once.

        That is a tenth of the time that they take, and as much memory as a batch, which cannot be
        given back in between: making it anew costs more than it saves.
        """
        self._batch = _BATCH_SIZE

    def end_bulk(self) -> None:
        """Encrypt one record at a time again, and give the memory back."""
        self._batch = _RECORD_SIZE
        if not _bio_pending(self._from, _nowhere):
            self._from = _growing_bio()
            self._use_bios()

    def give_back(self) -> None:
        """Let what is received be written into the connection itself again."""
        self._drained = False
        if not self._grows:
            self._into, self._grows = _growing_bio(), True
            self._use_bios()

    def open(self, wire: Scratch, size: int, plain: Scratch, start: int) -> tuple[int, int]:
        """Decrypt what comes with `size` bytes from the wire.

        Args:
            wire: What was received.
            size: How much of it counts.
            plain: Where the decrypted bytes go; must have room for all of them and one record.
            start: From where on.

        Returns:
            Where they end, and `SETTLED` when that was all and nothing is to be said to the peer;
            otherwise OpenSSL's last result.
        """
        if size > _COPIED:
            return self._open_large(wire, size, plain, start)
        if not self._grows:
            self.give_back()
        ssl, into = self._ssl, self._into
        _bio_write(into, wire.pointer, size)
        taken = _ssl_read(ssl, plain.pointer + start, plain.size - start)
        if self._drained and taken > 0 and taken + self._overhead == size:
            return start + taken, SETTLED  # one whole record, as nearly always
        while taken > 0:
            start += taken
            if not _bio_pending(into, _nowhere):
                self._drained = bool(self._overhead)
                return start, taken if _bio_pending(self._from, _nowhere) else SETTLED
            taken = _ssl_read(ssl, plain.pointer + start, plain.size - start)
        self._drained = False
        return start, taken

    def _open_large(self, wire: Scratch, size: int, plain: Scratch, start: int) -> tuple[int, int]:
        """As `open`, reading until there is no more: mostly a batch ends within a record."""
        self._into, self._grows, self._drained = _bio_on(wire, size), False, False
        self._use_bios()
        ssl, pointer, room = self._ssl, plain.pointer, plain.size
        while (taken := _ssl_read(ssl, pointer + start, room - start)) > 0:
            start += taken
        return start, taken

    def wants_more(self, result: int) -> bool:
        """Whether reading has ended with `result` just because all has been read."""
        wanted: bool = _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_WANT_READ
        return wanted

    def seal(
        self, plain: Scratch, start: int, end: int, wire: Scratch, filled: int
    ) -> tuple[int, int]:
        """Encrypt bytes, and put the records behind others that are to be sent.

        But for bulk, each record is fetched before the next is made, so that OpenSSL's own buffer,
        which does not shrink, stays small.

        Args:
            plain: Where the bytes are.
            start: From where on.
            end: Up to where.
            wire: Where the records go.
            filled: How much of that is in use.

        Returns:
            Up to where the bytes are encrypted: less than `end` when `wire` is full, or nothing can
            be sent any more; and how much of `wire` is in use now.
        """
        ssl, out, pointer, into = self._ssl, self._from, plain.pointer, wire.pointer
        most, batch = wire.size - _RECORD_ROOM, self._batch
        while start < end and filled <= most:
            stop = start + batch if end - start > batch else end
            if _ssl_write(ssl, pointer + start, stop - start) <= 0:
                forget_errors()
                break
            filled += _bio_read(out, into + filled, wire.size - filled)
            start = stop
        return start, filled

    def seal_one(self, plain: Scratch, start: int, end: int, wire: Scratch) -> int:
        """Encrypt as many bytes as fit into one record; arguments as for `seal`.

        Returns:
            Where the record ends in `wire`, which it begins; 0 when nothing can be sent any more.
        """
        if _ssl_write(self._ssl, plain.pointer + start, end - start) <= 0:
            forget_errors()
            return 0
        filled: int = _bio_read(self._from, wire.pointer, wire.size)
        return filled

    def take(self, wire: Scratch) -> int:
        """Put what waits for the wire into `wire`; returns where it ends."""
        taken: int = _bio_read(self._from, wire.pointer, wire.size)
        return max(taken, 0)


def _growing_bio() -> Any:
    bio = _lib.BIO_new(_lib.BIO_s_mem())
    assert bio != _ffi.NULL  # noqa: S101 - out of memory
    return bio


def _bio_on(wire: Scratch, size: int) -> Any:
    bio = _lib.BIO_new_mem_buf(wire.pointer, size)
    assert bio != _ffi.NULL  # noqa: S101 - out of memory
    _lib.BIO_set_mem_eof_return(bio, -1)  # its end is not the connection's
    return bio

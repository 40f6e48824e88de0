"""The few OpenSSL calls of the hot path, on buffers that are used again and again.

pyOpenSSL's methods allocate a buffer for each call and copy out of it; with many records that is
most of the time. What is called here is what these methods call, on the same connections.

`Connection._ssl`, `_into_ssl` and `_from_ssl` are pyOpenSSL's own names; they are used nowhere
else, and a test says when they change.
"""

from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

__all__ = ["SETTLED", "Records", "Scratch"]

SETTLED: Final = 1 << 31
"""No result of OpenSSL's: it reads less than that at once."""

_lib: Final[Any] = Binding.lib
_ffi: Final[Any] = Binding.ffi
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


class Records:
    """Moves bytes in and out of a connection without a socket whose handshake is over.

    Args:
        connection: Made without a socket.
    """

    __slots__ = ("_from", "_into", "_ssl")

    def __init__(self, connection: SSL.Connection) -> None:
        self._ssl: Any = connection._ssl  # noqa: SLF001 - see above
        self._into: Any = connection._into_ssl  # noqa: SLF001
        self._from: Any = connection._from_ssl  # noqa: SLF001
        # A write takes all records at once: the BIO behind it has no limit.
        _lib.SSL_clear_mode(self._ssl, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        _lib.SSL_set_mode(self._ssl, _lib.SSL_MODE_RELEASE_BUFFERS)

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
        ssl, into = self._ssl, self._into
        _bio_write(into, wire.pointer, size)
        pointer, room = plain.pointer, plain.size
        position = start
        while (taken := _ssl_read(ssl, pointer + position, room - position)) > 0:
            position += taken
            if not _bio_pending(into, _nowhere):
                return position, taken if _bio_pending(self._from, _nowhere) else SETTLED
        return position, taken

    def wants_more(self, result: int) -> bool:
        """Whether reading has ended with `result` just because all has been read."""
        wanted: bool = _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_WANT_READ
        return wanted

    def seal(self, plain: Scratch, start: int, end: int) -> int:
        """Encrypt bytes; returns OpenSSL's result, more than 0 when all is well."""
        sealed: int = _ssl_write(self._ssl, plain.pointer + start, end - start)
        return sealed

    def take(self, wire: Scratch) -> int:
        """Put what waits for the wire into `wire`; returns how much, less than 1 for nothing."""
        taken: int = _bio_read(self._from, wire.pointer, wire.size)
        return taken

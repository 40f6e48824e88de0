"""Authorities in a file that may change while we run: a private authority is rotated, too."""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from dbproxy.errors import ConfigError
from dbproxy.events import AuthoritiesPassedOver, Event
from dbproxy.identity import read_certificates

__all__ = ["RootsFile"]


class RootsFile:
    """The certificates of one PEM file, read again when the file has changed.

    Args:
        path: The file; read at once.
        publish: Is told when a changed file cannot be used; the last good set stays in use then.

    Raises:
        ConfigError: `file-unusable`.
    """

    def __init__(self, path: Path, publish: Callable[[Event], None]) -> None:
        self._path = path
        self._publish = publish
        self._stamp = self._look()
        self._certificates = read_certificates(path)

    def __call__(self) -> tuple[x509.Certificate, ...]:
        """The certificates, after a look whether the file has changed: one `stat` call."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_again()
        return self._certificates

    def _read_again(self) -> None:
        try:
            self._certificates = read_certificates(self._path)
        except ConfigError as error:
            self._publish(
                AuthoritiesPassedOver(
                    code=error.code, reason=error.message, next_step=error.next_step
                )
            )

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - one system call, in a hot place
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

"""The demo's temporary directory, and an environment that nothing outside it can bend."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Workshop", "open_workshop"]

FOREIGN: Final = ("DBPROXY_", "TBOT_", "TELEPORT_", "PG", "SSL_CERT_", "STATE_DIRECTORY")
"""Beginnings of variables by which the user's own set-up would change what the demo shows."""


@dataclass(frozen=True)
class Workshop:
    """Where everything of one demo lies.

    Attributes:
        directory: The temporary directory.
    """

    directory: Path

    @property
    def postgres(self) -> Path:
        """The data of the database, and its Unix socket."""
        return self.directory / "postgres"

    @property
    def cluster(self) -> Path:
        """The files of the stand-in for Teleport."""
        return self.directory / "cluster"

    @property
    def tbot_yaml(self) -> Path:
        """The configuration of tbot and dbproxy."""
        return self.directory / "tbot.yaml"

    @property
    def destination(self) -> Path:
        """The directory that tbot writes to."""
        return self.directory / "machine-id"

    @property
    def environment(self) -> Mapping[str, str]:
        """What `dbproxy` runs with: nothing of the user's set-up, and state in here."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        return kept | {"STATE_DIRECTORY": str(self.directory / "state")}

    def log(self, mode: str) -> Path:
        """The log of `dbproxy db` in a mode."""
        return self.directory / f"dbproxy-{mode}.log"


@contextmanager
def open_workshop() -> Iterator[Workshop]:
    """Make the directory, and remove it with all that is in it when the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="dbproxy-demo-"))
    try:
        yield Workshop(directory)
    finally:
        shutil.rmtree(directory)

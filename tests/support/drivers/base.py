"""What the conformance table is made of: drivers, and what each of them is put through.

A driver is an adapter of a few lines around what an application would do. It blocks, and keeps to
what dbproxy's start message says.
"""

import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import ClassVar

from dbproxy import Mode

TIMEOUT = 15
"""Seconds that a driver may take for one step."""
GREETING = "hello"
LARGE_LINES = tuple(f"{number:02}" + "0123456789abcdef" * 4096 for number in range(64))
LARGE = "\n".join(LARGE_LINES)
"""A little more than 4 MiB, in 64 rows."""


class Cell(StrEnum):
    """A column of the table."""

    CONNECT = "connect"
    QUERY = "query"
    LARGE_RESULT = "large result"
    RECONNECT = "reconnect"
    DENIED_USER = "denied user"
    FOREIGN_CERTIFICATE = "foreign certificate"
    NO_CERTIFICATE = "no certificate"


@dataclass(frozen=True)
class Endpoint:
    """Where a client connects, and with what.

    Attributes:
        mode: How dbproxy authenticates clients.
        port: Of `localhost`.
        user: The database user.
        database: The database's name.
        ca_file: What the client must trust; None in a tunnel.
        certificate_file: What it shows; None in a tunnel, and for clients without one.
        key_file: Its key.
        combined_file: Certificate and key in one file, as tbot's `mongo` template writes it.
        command: The command line that dbproxy printed.
    """

    mode: Mode
    port: int
    user: str
    database: str
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    combined_file: Path | None
    command: str

    @property
    def has_tls(self) -> bool:
        """Whether clients use TLS."""
        return self.mode is not Mode.TUNNEL

    def with_files(self, certificate: Path, key: Path, combined: Path) -> "Endpoint":
        """The same with another certificate."""
        return replace(self, certificate_file=certificate, key_file=key, combined_file=combined)

    def without_certificate(self) -> "Endpoint":
        """The same for a client that shows none."""
        return replace(self, certificate_file=None, key_file=None, combined_file=None)

    def context(self) -> SSLContext | None:
        """For drivers that take a context of Python's; None in a tunnel."""
        if not self.has_tls:
            return None
        context = create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class Session(ABC):
    """One connection of an application, or what stands for it."""

    @abstractmethod
    def greeting(self) -> str:
        """Ask for one row; the answer is `GREETING`."""

    @abstractmethod
    def large(self) -> str:
        """Ask for all of `LARGE`."""


class Driver(ABC):
    """A driver or program in one version.

    Attributes:
        name: As people call it.
        protocol: The database protocol, as Teleport names it.
        errors: What it raises when it cannot connect, or the connection has ended.
        note: What somebody who uses it through dbproxy must know.
        reconnects: Whether a session goes on by itself after its connection has ended.
        is_program: Whether a session makes a connection for each question.
        without_certificates: Whether it has no way to show one.
        leaves_sockets: Whether it leaves the sockets of refused connections open.
    """

    name: ClassVar[str]
    protocol: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    note: ClassVar[str] = ""
    reconnects: ClassVar[bool] = False
    is_program: ClassVar[bool] = False
    without_certificates: ClassVar[bool] = False
    leaves_sockets: ClassVar[bool] = False

    @cached_property
    def version(self) -> str:
        """Which version is installed."""
        return version(self.name)

    @abstractmethod
    def open(self, endpoint: Endpoint) -> AbstractContextManager[Session]:
        """Connect, for the length of the block.

        Raises:
            Exception: One of `errors`. A driver that connects when it is asked something raises it
                then.
        """


class ProgramFailed(Exception):
    """A program ended with an error; the text is what it printed."""


def run_program(words: Sequence[str], script: str = "") -> str:
    """Run a program to its end, with a script as its input; returns what it printed.

    Raises:
        ProgramFailed: It said that it failed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        words,
        input=script,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        env=kept | {"LC_ALL": "C.UTF-8"},
        check=False,
    )
    if done.returncode:
        raise ProgramFailed(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def first_version(text: str) -> str:
    """The first version number in what `--version` prints."""
    found = re.search(r"\d+(\.\d+)+", text)
    assert found, text
    return found[0]

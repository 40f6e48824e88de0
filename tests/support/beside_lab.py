"""Commands of dbproxy that run beside a lab, and a program that tells which signals it gets."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from commands import COMMAND, PATIENCE, Lines, Outcome, RunningCommand, clean_environment

from dbproxy.lab import Lab, guide
from dbproxy.lab.keys import new_ecdsa_key
from dbproxy.lab.tbot import Tbot

TELLS = """
import os, signal, sys

ends_at = sys.argv[1:]
heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
         signal.SIGUSR1, signal.SIGUSR2)
for number in heard:
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, heard)  # none is missed between one and the next
print("ready", os.getpid(), flush=True)
while True:
    name = signal.Signals(signal.sigwait(heard)).name
    print(name, flush=True)
    if name in ends_at:
        os._exit(7)
"""
"""A program that prints the signals it gets, and ends with status 7 at those that it is told."""

_AT_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def tells(*ends_at: str) -> tuple[str, ...]:
    """The command line of that program."""
    return (sys.executable, "-c", TELLS, *ends_at)


@dataclass
class BesideLab:
    """Runs dbproxy with the options that lead to a lab.

    Attributes:
        lab: The lab.
        home: The home directory.
        tbot: Writes the certificates.
    """

    lab: Lab
    home: Path
    tbot: Tbot = field(repr=False)

    @classmethod
    async def make(cls, lab: Lab, directory: Path, **changes: str) -> "BesideLab":
        """A destination that a tbot has written once, and a tbot.yaml that leads there."""
        destination = directory / "machine-id"
        config = guide.tbot_yaml(
            lab.tokens[guide.BOT], proxy=lab.address, destination=destination, **changes
        )
        (directory / "tbot.yaml").write_text(config)
        tbot = lab.tbot(config, generate_key=new_ecdsa_key)
        await tbot.renew()
        return cls(lab, directory, tbot)

    @property
    def options(self) -> tuple[str, ...]:
        """The global options."""
        return ("-c", str(self.home / "tbot.yaml"), "--proxy-ca", str(self.lab.web_ca_file))

    async def run(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> Outcome:
        """Run a command that ends by itself, while the lab goes on.

        Args:
            arguments: Of the command line.
            env: Additional environment variables.
            through: The words of a program that runs it.
        """
        words = (*through, COMMAND, *self.options, *map(str, arguments))
        return await run_program(*words, env=clean_environment(self.home, env))

    @asynccontextmanager
    async def running(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[RunningCommand]:
        """Run a command in the background, in a session of its own, without a terminal."""
        process = await trio.lowlevel.open_process(
            [COMMAND, *self.options, *map(str, arguments)],
            env=clean_environment(self.home, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        async with _collected(process) as command:
            yield command

    @asynccontextmanager
    async def at_terminal(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[RunningCommand, int]]:
        """Run a command whose controlling terminal is the descriptor that comes along."""
        ours, theirs = os.openpty()
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", _AT_TERMINAL, COMMAND, *self.options, *map(str, arguments)],
                env=clean_environment(self.home, env),
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            os.close(theirs)
            async with _collected(process) as command:
                yield command, ours
        finally:
            os.close(ours)


@asynccontextmanager
async def _collected(process: trio.Process) -> AsyncIterator[RunningCommand]:
    assert process.stdout is not None
    assert process.stderr is not None
    command = RunningCommand(process, Lines(), Lines())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.out.collect, process.stdout)
            nursery.start_soon(command.err.collect, process.stderr)
            yield command
            if process.returncode is None:
                process.kill()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
            await process.wait()


async def run_program(*words: str, env: Mapping[str, str]) -> Outcome:
    """Run a program to its end, within bounds."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            start_new_session=True,
        )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

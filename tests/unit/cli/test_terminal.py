"""Telling a closed terminal from the word to reload, with a real pseudo-terminal."""

import os
import pty
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys
from dbproxy.cli.terminal import ControllingTerminal
terminal = ControllingTerminal.at_start()
signal.signal(signal.SIGHUP, lambda *_: None)
print(terminal.is_gone(), file=sys.stderr, flush=True)
sys.stdin.read()
print(terminal.is_gone(), file=sys.stderr, flush=True)
"""


def answers(*, ignore_hangup: bool, terminal: bool) -> list[bytes]:
    """What the program says of its terminal before and after the other end was closed."""
    ours, theirs = pty.openpty()
    stdin_end, stdin = os.pipe()

    def prepare() -> None:
        os.setsid()
        if terminal:
            os.close(os.open(os.ttyname(theirs), os.O_RDWR))  # becomes the controlling terminal
        if ignore_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=stdin_end,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
    )
    assert process.stderr is not None
    os.close(stdin_end)
    before = process.stderr.readline()
    os.close(theirs)
    os.close(ours)
    os.close(stdin)
    _, after = process.communicate(timeout=20)
    return [before.strip(), after.strip()]


@pytest.mark.parametrize(
    ("ignore_hangup", "terminal", "gone"),
    [(False, True, b"True"), (True, True, b"False"), (False, False, b"False")],
    ids=["closed", "closed with nohup", "none from the start"],
)
def test_only_a_terminal_that_was_closed_is_gone(
    ignore_hangup: bool, terminal: bool, gone: bytes
) -> None:
    assert answers(ignore_hangup=ignore_hangup, terminal=terminal) == [b"False", gone]


ASKS = """
import signal, subprocess, sys
from dbproxy.cli.terminal import ControllingTerminal
terminal = ControllingTerminal.at_start()
for number in signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1:
    print(number.name, terminal.has_told_everybody(number))
"""


def told(*, terminal: bool, foreground: bool = True) -> dict[str, str]:
    """What the program says about each signal."""
    ours, theirs = pty.openpty()

    def prepare() -> None:
        os.setsid()
        if terminal:
            os.close(os.open(os.ttyname(theirs), os.O_RDWR))
        if not foreground:
            if os.fork():  # the session's leader stays in the foreground
                os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
            os.setpgid(0, 0)

    process = subprocess.run(
        [sys.executable, "-c", ASKS],
        stdout=subprocess.PIPE,
        preexec_fn=prepare,
        check=True,
        timeout=20,
    )
    os.close(ours)
    os.close(theirs)
    return dict(line.split() for line in process.stdout.decode().splitlines())


def test_a_terminals_keys_reach_the_programs_in_its_foreground() -> None:
    """SIGHUP is told to all when the terminal is gone, which it is not here."""
    assert {name for name, answer in told(terminal=True).items() if answer == "True"} == {
        "SIGINT",
        "SIGQUIT",
    }


@pytest.mark.parametrize(("terminal", "foreground"), [(True, False), (False, True)])
def test_others_are_reached_by_no_key(terminal: bool, foreground: bool) -> None:
    assert set(told(terminal=terminal, foreground=foreground).values()) == {"False"}

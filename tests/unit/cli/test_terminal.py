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

"""Burying orphans: with real ones, in a process that inherits them as process 1 does."""

import os
import subprocess
import sys

import pytest

from dbproxy.run.orphans import is_first_process

PROGRAM = """
import ctypes, subprocess, sys
import psutil, trio
from dbproxy.run.orphans import bury_orphans

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

async def main():
    # A shell that leaves orphans behind: two that end at once, one a little later.
    script = "(sh -c 'exit 3' & sh -c 'exit 4' & sleep 0.3 &); echo; read line; exit 5"
    process = await trio.lowlevel.open_process(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    await process.stdout.receive_some()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bury_orphans, process.pid)
            while len(psutil.Process().children()) != 1:  # all but the shell are gone, and buried
                await trio.sleep(0.02)
            await process.stdin.send_all(b"go\\n")
            print(await process.wait())
            nursery.cancel_scope.cancel()
    print(len(psutil.Process().children()))

trio.run(main)
"""


def test_orphans_are_buried_and_our_own_command_is_left_to_who_waits_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["5", "0"], "")


@pytest.mark.parametrize("pid", [1, 2])
def test_only_process_1_inherits_orphans(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: pid)
    assert is_first_process() is (pid == 1)

"""A command beside a proxy: listening, the command, draining, in this order.

Whatever ends the proxy ends the command, and the other way round. Signals go to the command; what
each of them means, and when, is decided in `supervision.py`.

    prepare ── a connection works ── the command runs ── drain ── its status
                                     └ the proxy fails: SIGTERM; SIGKILL after the drain time

Tested in `tests/unit/run/test_alongside.py` and, with the lab, in `tests/blackbox/test_run.py`.
"""

import signal
from collections.abc import AsyncIterator, Callable

import trio

from dbproxy.events import Subscriber
from dbproxy.proxy import DatabaseProxy, Prepared, serving
from dbproxy.relay import own_the_loop
from dbproxy.run.orphans import bury_orphans, is_first_process
from dbproxy.run.process import Command, dismiss, send, start
from dbproxy.run.readiness import wait_until_ready
from dbproxy.run.supervision import FORWARDED, Do, Supervision, shell_status
from dbproxy.settings import Settings

__all__ = ["run_alongside"]


async def run_alongside(
    settings: Settings,
    publish: Subscriber,
    make_command: Callable[[Prepared], Command],
    *,
    heard: Callable[[int], bool],
    interactive: bool = False,
) -> int:
    """Run a command beside a proxy, alone in trio's loop, and do what signals ask for.

    Signals that are ignored when this begins stay so, for the command too.

    Args:
        settings: The proxy's; and how long to wait until a connection works.
        publish: Gets every event.
        make_command: Says what to run, once the port is known.
        heard: Whether the command, too, has had a signal that has just come, from the terminal.
        interactive: Whether it is a client that people talk with.

    Returns:
        The exit status of the command; 128 and the number of a signal if that has ended it, or us
        before the command ran.

    Raises:
        DBProxyError: There is no proxy, no connection or no command; in an exception group.
    """
    own_the_loop()
    proxy = DatabaseProxy(settings, publish)
    run = _Run(proxy, settings, publish, make_command, Supervision(interactive=interactive))
    wanted = [it for it in FORWARDED if signal.getsignal(it) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*wanted) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.obey, signals, heard)
            await run.to_the_end()
            nursery.cancel_scope.cancel()
    return run.status


class _Run:
    def __init__(
        self,
        proxy: DatabaseProxy,
        settings: Settings,
        publish: Subscriber,
        make_command: Callable[[Prepared], Command],
        supervision: Supervision,
    ) -> None:
        self._proxy = proxy
        self._settings = settings
        self._publish = publish
        self._make_command = make_command
        self._supervision = supervision
        self._everything = trio.CancelScope()
        self._process: trio.Process | None = None
        self.status = 0

    async def to_the_end(self) -> None:
        with self._everything:
            async with serving(self._proxy) as prepared:
                command = self._make_command(prepared)
                await wait_until_ready(prepared, self._settings.ready_timeout, self._publish)
                self.status = shell_status(await self._command_to_its_end(command))

    async def obey(self, signals: AsyncIterator[int], heard: Callable[[int], bool]) -> None:
        async for number in signals:
            self._act(number, heard=heard(number))

    async def _command_to_its_end(self, command: Command) -> int:
        """Run the command, and see to it that it has ended in any case."""
        self._supervision.launching()
        process = self._process = await start(command)
        try:
            for number in self._supervision.started():
                self._act(number, heard=False)
            async with trio.open_nursery() as nursery:
                if is_first_process():
                    nursery.start_soon(bury_orphans, process.pid)
                returncode = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            if process.returncode is None:
                await dismiss(process, self._settings.drain_timeout)
            self._supervision.ended()
        return returncode

    def _act(self, number: int, *, heard: bool) -> None:
        match self._supervision.signal(number, heard=heard):
            case Do.PASS_ON:
                self._send(number)
            case Do.KILL:
                self._send(signal.SIGKILL)
                self._proxy.stop_now()
            case Do.GIVE_UP:
                self.status = shell_status(-number)
                self._everything.cancel()
            case Do.END_NOW:
                self._everything.cancel()

    def _send(self, number: int) -> None:
        if self._process is not None:
            send(self._process, number)

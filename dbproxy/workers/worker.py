"""A process that serves a port together with others, and does what its supervisor says.

Of the events of its proxy, what the supervisor has told at start is not told again, and numbers for
which all processes count together are reported to it. Everything else goes to the worker's log.
"""

import signal
import socket
from collections.abc import AsyncIterator
from typing import Final

import trio

from dbproxy.downstream import Listener, ServerCertificate
from dbproxy.errors import DBProxyError
from dbproxy.events import (
    AuthoritiesPassedOver,
    DrainingStarted,
    Event,
    InsecureChoice,
    Listening,
    PrewarmUnavailable,
    Stopped,
    Subscriber,
    SupervisorLost,
)
from dbproxy.proxy import DatabaseProxy, Inherited, Prepared
from dbproxy.relay import own_the_loop
from dbproxy.settings import Settings
from dbproxy.workers import messages
from dbproxy.workers.channel import Channel
from dbproxy.workers.handover import Handover
from dbproxy.workers.messages import (
    Begin,
    Draining,
    Message,
    Mistaken,
    Ready,
    Reload,
    Shown,
    Stop,
    StopNow,
)

__all__ = ["Worker"]

_TOLD_AT_START: Final = (Listening, InsecureChoice, AuthoritiesPassedOver, PrewarmUnavailable)
"""By the supervisor, which has the same settings."""
_SUMMED_UP: Final = (DrainingStarted, Stopped)
"""By the supervisor; in our log only with --debug, or when this process ends alone."""

_LOST: Final = SupervisorLost(
    reason="the process that started this one, and looks after it, has ended without a word",
    next_step="See who has killed it, then start dbproxy again.",
)


class Worker:
    """One of several processes that serve a port.

    Args:
        settings: As the supervisor has them.
        handover: What this process has been given; closed at the end.
        log: Gets the events that are this process's own.
    """

    def __init__(self, settings: Settings, handover: Handover, log: Subscriber) -> None:
        self._settings = settings
        self._log = log
        self._channel = Channel(socket.socket(fileno=handover.channel))
        self._listener = socket.socket(fileno=handover.listener)
        self._certificate: ServerCertificate | None = None
        self._begun = trio.Event()
        self._startup = trio.CancelScope()
        self._proxy: DatabaseProxy | None = None
        self._is_ready = False
        self._is_alone = False

    async def run(self) -> None:
        """Serve until the supervisor says so or is gone, or SIGTERM comes; alone in trio's loop.

        What terminals send to every process of theirs, SIGINT and SIGHUP, is the supervisor's
        business (`dbproxy.__main__` ignores it).
        """
        own_the_loop()
        try:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey_signals, signals)
                    nursery.start_soon(self._obey_supervisor, nursery)
                    await self._serve()
                    nursery.cancel_scope.cancel()
        finally:
            self._listener.close()
            self._channel.close()

    async def _serve(self) -> None:
        prepared: Prepared | None = None
        with self._startup:
            await self._begun.wait()
            prepared = await self._prepare(self._make_proxy())
        if prepared is not None and self._proxy is not None:
            await self._proxy.serve(prepared)

    def _make_proxy(self) -> DatabaseProxy:
        listener = Listener(self._listener)
        inherited = Inherited(listener, self._certificate)
        self._proxy = DatabaseProxy(self._settings, self._tell, inherited=inherited)
        return self._proxy

    async def _prepare(self, proxy: DatabaseProxy) -> Prepared | None:
        """Read the identity; what is wrong is the supervisor's to tell."""
        try:
            prepared = await proxy.prepare()
        except DBProxyError as error:
            self._channel.send(Mistaken.of(error))
            return None
        self._is_ready = True
        self._channel.send(Ready())
        return prepared

    def _stop(self) -> None:
        self._startup.cancel()
        if self._proxy is not None:
            self._proxy.stop()

    def _stop_now(self) -> None:
        self._startup.cancel()
        if self._proxy is not None:
            self._proxy.stop_now()

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        async for _number in signals:
            self._is_alone = True
            self._stop()

    async def _obey_supervisor(self, nursery: trio.Nursery) -> None:
        while received := await self._channel.receive():
            for message in received:
                self._obey(message, nursery)
        self._is_alone = True
        self._log(_LOST)
        self._stop()

    def _obey(self, message: Message, nursery: trio.Nursery) -> None:
        match message:
            case Begin():
                self._begun.set()
            case Shown():
                self._certificate = message.certificate()
                self._begun.set()
            case Reload() if self._proxy is not None:
                nursery.start_soon(self._proxy.reload)
            case Stop():
                self._stop()
            case StopNow():
                self._stop_now()

    def _tell(self, event: Event) -> None:
        """Sort the events of our proxy: for the log, for the supervisor, for nobody."""
        if isinstance(event, _TOLD_AT_START) and not self._is_ready:
            return
        match event:
            case DrainingStarted():
                self._channel.send(Draining(event.open_connections))
            case Stopped():
                self._channel.send(messages.Stopped(event.ended_early))
        if self._is_alone or self._settings.debug or not isinstance(event, _SUMMED_UP):
            self._log(event)

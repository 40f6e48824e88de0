"""The process that looks after workers, with stand-ins for them."""

import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import stand_in_worker
import trio
from lab_client import until
from loopback import free_port

from dbproxy.backoff import Backoff
from dbproxy.errors import Code, DBProxyError, IdentityError, ListenError
from dbproxy.events import (
    DrainingStarted,
    Event,
    Listening,
    Stopped,
    WorkerFailed,
    WorkerStarted,
)
from dbproxy.proxy import Started
from dbproxy.settings import Settings
from dbproxy.workers import supervisor as supervisor_module
from dbproxy.workers.launch import own_command
from dbproxy.workers.roster import Roster
from dbproxy.workers.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")

STAND_IN = (sys.executable, "-S", "-E", str(Path(stand_in_worker.__file__)))
PATIENCE = 20.0

E = TypeVar("E", bound=Event)


@pytest.fixture(autouse=True)
def no_process_may_be_left() -> Iterator[None]:
    """Fails the test when a worker is left after it; a database for other tests may run."""
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before


@dataclass
class Bench:
    """A supervisor, and what it has published."""

    supervisor: Supervisor
    events: list[Event]
    started: list[Started] = field(default_factory=list)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[Event], count: int = 1) -> None:
        await until(lambda: len(self.of(kind)) >= count, PATIENCE)

    @property
    def processes(self) -> list[int]:
        return [event.pid for event in self.of(WorkerStarted)]


def make_bench(
    destination: Path, behaviours: tuple[str, ...], log_lock: int | None = None, **settings: Any
) -> Bench:
    values: dict[str, Any] = {
        "destination_dir": destination,
        "proxy": "127.0.0.1:1",
        "tunnel": True,
        "workers": 2,
        "drain_timeout": 5.0,
    }
    events: list[Event] = []
    supervisor = Supervisor(
        Settings(**(values | settings)),
        events.append,
        log_lock=log_lock,
        command=(*STAND_IN, *behaviours),
        make_backoff=lambda: Backoff(0.01, 0.05),
    )
    return Bench(supervisor, events)


@asynccontextmanager
async def running(destination: Path, *behaviours: str, **settings: Any) -> AsyncIterator[Bench]:
    """Run a supervisor for the length of the block, at whose end it must have ended."""
    bench = make_bench(destination, behaviours, **settings)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            bench.started.append(await nursery.start(bench.supervisor.run))
            yield bench


async def fail(destination: Path, *behaviours: str, **settings: Any) -> tuple[Bench, DBProxyError]:
    """Run one that cannot start, and return its only error."""
    bench = make_bench(destination, behaviours, **settings)
    with trio.fail_after(PATIENCE), pytest.raises((ExceptionGroup, DBProxyError)) as caught:
        await bench.supervisor.run()
    (error,) = leaves(caught.value)
    assert isinstance(error, DBProxyError)
    return bench, error


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


class TestServing:
    async def test_every_worker_is_started_and_the_start_is_told_once(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve", workers=3) as bench:
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        assert {event.worker for event in bench.of(WorkerStarted)} == {1, 2, 3}
        assert len(set(bench.processes)) == 3
        (listening,) = bench.of(Listening)
        assert listening.address == bench.started[0].address

    async def test_a_worker_that_is_killed_is_replaced_and_the_port_stays_open(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve") as bench:
            await bench.until(WorkerStarted, 2)
            os.kill(bench.processes[0], 9)
            port = int(bench.started[0].address.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)):
                await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        (failure,) = bench.of(WorkerFailed)
        assert failure.worker == bench.of(WorkerStarted)[0].worker
        assert failure.code is Code.WORKER_LOST
        assert f"(process {bench.processes[0]}) was ended by SIGKILL" in failure.reason
        assert failure.retry_in is not None
        assert 0 < failure.retry_in <= 0.01
        assert bench.of(WorkerStarted)[2].worker == 3

    async def test_one_that_crashes_again_and_again_is_tried_again_and_again(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve", "serve", *["crash"] * 3, "serve") as bench:
            await bench.until(WorkerStarted, 2)
            os.kill(bench.processes[0], 9)
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        assert [event.reason for event in bench.of(WorkerFailed)[1:]] == [
            event.reason for event in bench.of(WorkerFailed)[1:] if "with status 7" in event.reason
        ]
        assert [event.worker for event in bench.of(WorkerFailed)[1:]] == [3, 4, 5]

    async def test_one_that_ends_well_is_replaced_without_a_complaint(
        self, destination: Path
    ) -> None:
        async with running(destination, "asked", "serve") as bench:
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        assert bench.of(WorkerFailed) == []

    async def test_sigterm_to_one_that_does_not_handle_it_yet_is_an_end_that_was_asked_for(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve") as bench:
            await bench.until(WorkerStarted, 2)
            os.kill(bench.processes[0], 15)
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        assert bench.of(WorkerFailed) == []

    async def test_a_mistake_that_a_later_worker_meets_does_not_end_those_that_serve(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve", "serve", "mistake", "serve") as bench:
            await bench.until(WorkerStarted, 2)
            os.kill(bench.processes[0], 9)
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        failure = bench.of(WorkerFailed)[1]
        assert (failure.worker, failure.code) == (3, Code.CERTIFICATE_EXPIRED)
        assert (failure.reason, failure.next_step) == ("it is over", "Wait.")

    async def test_a_mistake_when_nobody_serves_any_more_ends_all(self, destination: Path) -> None:
        bench, error = await fail(destination, "crash-later", "mistake", workers=1)
        assert (error.code, error.message, error.next_step) == (
            Code.CERTIFICATE_EXPIRED,
            "it is over",
            "Wait.",
        )
        assert [event.code for event in bench.of(WorkerFailed)] == [Code.WORKER_LOST]

    async def test_one_that_says_what_no_worker_says_is_replaced(self, destination: Path) -> None:
        async with running(destination, "serve", "rubbish", "serve") as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
        (failure,) = bench.of(WorkerFailed)
        assert "says what no worker says" in failure.reason
        assert failure.worker == 2

    async def test_a_reload_reaches_every_worker(
        self, destination: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with running(destination, "serve", log_lock=2) as bench:
            await bench.until(WorkerStarted, 2)
            await bench.supervisor.reload()
            told = ""
            while told.count("reloads") < 2:
                await trio.sleep(0.01)
                told += capfd.readouterr().err
            bench.supervisor.stop()
        assert {"worker 1 reloads", "worker 2 reloads"} <= set(told.splitlines())

    async def test_where_the_system_has_no_descriptors_for_processes_they_are_looked_at(
        self, destination: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        async with running(destination, "serve", "asked", "serve") as bench:
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
        assert bench.of(WorkerFailed) == []

    def test_a_worker_is_started_as_this_process_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "dbproxy", "db"])
        monkeypatch.setattr(sys, "executable", "/opt/dbproxy/bin/python")
        assert own_command() == ("/opt/dbproxy/bin/python", "-m", "dbproxy", "db")
        monkeypatch.setattr(sys, "executable", "")
        assert own_command() == ("python3", "-m", "dbproxy", "db")


class TestFailingToStart:
    async def test_what_is_wrong_is_found_before_any_worker_is_started(
        self, destination: Path
    ) -> None:
        (destination / "key").unlink()
        bench, error = await fail(destination, "serve")
        assert isinstance(error, IdentityError)
        assert error.code is Code.IDENTITY_MISSING
        assert bench.events == []

    async def test_a_port_in_use_is_one_error(self, destination: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            _bench, error = await fail(destination, "serve", port=port)
        assert isinstance(error, ListenError)
        assert error.code is Code.ADDRESS_IN_USE

    async def test_a_mistake_of_every_worker_is_told_once(self, destination: Path) -> None:
        bench, error = await fail(destination, "mistake", workers=4)
        assert (error.code, error.message) == (Code.CERTIFICATE_EXPIRED, "it is over")
        assert bench.of(WorkerFailed) == []

    async def test_a_worker_that_crashes_before_any_is_ready_ends_all(
        self, destination: Path
    ) -> None:
        bench, error = await fail(destination, "slow", "crash")
        assert error.code is Code.WORKER_LOST
        assert "ended with status 7" in error.message
        assert bench.of(WorkerFailed) == []

    async def test_a_command_that_cannot_be_run_ends_all(self, destination: Path) -> None:
        bench = make_bench(destination, ())
        bench.supervisor._command = ("/nowhere/dbproxy",)
        with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
            await bench.supervisor.run()
        (error,) = leaves(caught.value)
        assert isinstance(error, DBProxyError)
        assert error.code is Code.WORKER_LOST
        assert "cannot be started: No such file or directory" in error.message

    async def test_the_port_is_free_afterwards(self, destination: Path) -> None:
        port = free_port()
        await fail(destination, "crash", port=port)
        socket.create_server(("127.0.0.1", port)).close()


class TestStopping:
    async def test_the_numbers_of_all_workers_are_summed_up_and_told_once(
        self, destination: Path
    ) -> None:
        async with running(destination, "serve", workers=3) as bench:
            await bench.until(WorkerStarted, 3)
            bench.supervisor.stop()
            bench.supervisor.stop()
        assert bench.of(DrainingStarted) == [DrainingStarted(open_connections=6, grace=5.0)]
        assert bench.of(Stopped) == [Stopped(ended_early=3)]
        assert bench.of(WorkerFailed) == []

    async def test_the_port_is_closed_at_once(self, destination: Path) -> None:
        async with running(destination, "deaf", "serve") as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
            assert bench.supervisor._port is not None
            assert bench.supervisor._port.listener.fileno() == -1
            deaf = next(event for event in bench.of(WorkerStarted) if event.worker == 1)
            os.kill(deaf.pid, 9)

    async def test_at_once_means_at_once(self, destination: Path) -> None:
        async with running(destination, "serve", drain_timeout=1000.0) as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop_now()
        assert bench.of(Stopped) == [Stopped(ended_early=4)]

    async def test_a_worker_that_is_not_ready_yet_is_told_too(self, destination: Path) -> None:
        async with running(destination, "serve", "slow") as bench:
            bench.supervisor.stop()
        assert bench.of(Stopped)
        assert bench.of(WorkerFailed) == []

    async def test_nobody_is_replaced_any_more(self, destination: Path) -> None:
        async with running(destination, "serve", "deaf", "serve") as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
            deaf = next(event for event in bench.of(WorkerStarted) if event.worker == 2)
            os.kill(deaf.pid, 9)
        (failure,) = bench.of(WorkerFailed)
        assert (failure.worker, failure.retry_in) == (2, None)
        assert bench.of(DrainingStarted) == [DrainingStarted(open_connections=2, grace=5.0)]

    async def test_one_that_waits_to_be_replaced_is_not_waited_for(self, destination: Path) -> None:
        bench = make_bench(destination, ("serve", "crash-later", "slow"))
        bench.supervisor._roster = Roster(2, lambda: Backoff(1000.0, 1000.0))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await nursery.start(bench.supervisor.run)
                await bench.until(WorkerFailed)
                await bench.until(WorkerStarted, 2)
                bench.supervisor.stop()

    async def test_one_that_hangs_is_killed_in_the_end(
        self, destination: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor_module, "_PATIENCE", 0.1)
        async with running(destination, "deaf", "serve", drain_timeout=0) as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
        (failure,) = bench.of(WorkerFailed)
        assert failure.worker == 1
        assert "was killed" in failure.reason
        assert bench.of(Stopped) == [Stopped(ended_early=1)]

    async def test_a_second_wish_to_stop_shortens_the_wait(
        self, destination: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor_module, "_NO_PATIENCE", 0.1)
        async with running(destination, "deaf", drain_timeout=1000.0) as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
            bench.supervisor.stop_now()
        assert len(bench.of(WorkerFailed)) == 2

    async def test_cancelled_it_leaves_no_process(
        self, destination: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor_module, "_NO_PATIENCE", 0.1)
        bench = make_bench(destination, ("serve", "deaf", "slow"), workers=3)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await nursery.start(bench.supervisor.run)
                await bench.until(WorkerStarted, 2)
                nursery.cancel_scope.cancel()
        assert bench.of(Stopped) == []

    async def test_stopped_and_cancelled_before_a_worker_is_ready_it_says_that_it_has_stopped(
        self, destination: Path
    ) -> None:
        bench = make_bench(destination, ("slow",))
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.supervisor.run)
                await until(lambda: bench.supervisor._port is not None, PATIENCE)
                nursery.cancel_scope.cancel()
                bench.supervisor.stop()
        assert bench.of(WorkerStarted) == []
        assert bench.of(Stopped) == [Stopped(ended_early=0)]

    async def test_cancelled_at_any_moment_of_the_start_it_leaves_nothing(
        self, destination: Path
    ) -> None:
        before = psutil.Process().children()
        for pause in (0, 0.001, 0.005, 0.02, 0.05, 0.1):
            bench = make_bench(destination, ("serve",))
            with trio.move_on_after(pause):
                await bench.supervisor.run()
            assert psutil.Process().children() == before

    async def test_only_the_supervisor_removes_the_name_of_a_unix_socket(
        self, destination: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / ".s.PGSQL.5432"
        async with running(destination, "serve", listen=f"unix://{path}") as bench:
            await bench.until(WorkerStarted, 2)
            os.kill(bench.processes[0], 9)
            await bench.until(WorkerStarted, 3)
            assert path.is_socket()
            bench.supervisor.stop()
        assert not path.exists()

    async def test_a_name_that_another_process_takes_while_it_drains_is_left_alone(
        self, destination: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / ".s.PGSQL.5432"
        async with running(destination, "deaf", "serve", listen=f"unix://{path}") as bench:
            await bench.until(WorkerStarted, 2)
            bench.supervisor.stop()
            assert not path.exists()
            with socket.socket(socket.AF_UNIX) as another:
                another.bind(str(path))
            deaf = next(event for event in bench.of(WorkerStarted) if event.worker == 1)
            os.kill(deaf.pid, 9)
        assert path.is_socket()

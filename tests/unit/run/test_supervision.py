"""What signals mean, phase by phase; with random sequences against the written rules."""

import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.run.supervision import FORWARDED, Do, Supervision, shell_status

TO_END = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
USER = [signal.SIGUSR1, signal.SIGUSR2]
every_signal = pytest.mark.parametrize("number", FORWARDED)


def running(*, interactive: bool = False) -> Supervision:
    supervision = Supervision(interactive=interactive)
    supervision.launching()
    assert list(supervision.started()) == []
    return supervision


@pytest.mark.parametrize("number", TO_END)
def test_before_the_command_runs_a_signal_ends_everything(number: int) -> None:
    for heard in (True, False):
        assert Supervision().signal(number, heard=heard) is Do.GIVE_UP


@pytest.mark.parametrize("number", USER)
def test_a_users_signal_is_for_nobody_but_the_command(number: int) -> None:
    supervision = Supervision()
    assert supervision.signal(number, heard=False) is Do.NOTHING
    supervision.launching()
    supervision.started()
    assert supervision.signal(number, heard=False) is Do.PASS_ON
    supervision.ended()
    assert supervision.signal(number, heard=False) is Do.NOTHING


@every_signal
def test_a_running_command_gets_what_it_has_not_heard(number: int) -> None:
    assert running().signal(number, heard=False) is Do.PASS_ON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_what_a_terminal_has_told_the_command_is_not_told_again(number: int) -> None:
    assert running().signal(number, heard=True) is Do.NOTHING


@pytest.mark.parametrize("number", [signal.SIGTERM, *USER])
def test_no_terminal_sends_the_other_signals(number: int) -> None:
    assert running().signal(number, heard=True) is Do.PASS_ON


@pytest.mark.parametrize("heard", [(True, True), (False, False), (True, False), (False, True)])
def test_a_second_sigint_ends_at_once(heard: tuple[bool, bool]) -> None:
    supervision = running()
    assert supervision.signal(signal.SIGINT, heard=heard[0]) is not Do.KILL
    assert supervision.signal(signal.SIGTERM, heard=False) is Do.PASS_ON
    assert supervision.signal(signal.SIGINT, heard=heard[1]) is Do.KILL


def test_other_signals_may_come_as_often_as_they_like() -> None:
    supervision = running()
    for _ in range(3):
        assert supervision.signal(signal.SIGTERM, heard=False) is Do.PASS_ON


def test_people_at_a_client_may_press_ctrl_c_as_often_as_they_like() -> None:
    supervision = running(interactive=True)
    for _ in range(5):
        assert supervision.signal(signal.SIGINT, heard=True) is Do.NOTHING
    assert supervision.signal(signal.SIGINT, heard=False) is Do.PASS_ON


@pytest.mark.parametrize("number", TO_END)
def test_when_the_command_has_ended_a_signal_ends_the_wait(number: int) -> None:
    supervision = running()
    supervision.ended()
    assert supervision.signal(number, heard=True) is Do.END_NOW


@every_signal
def test_a_signal_while_the_system_starts_the_command_is_kept_for_it(number: int) -> None:
    """Regression: SIGTERM in the moment between its start and our knowledge of it was lost."""
    supervision = Supervision()
    supervision.launching()
    for heard in (True, False):
        assert supervision.signal(number, heard=heard) is Do.NOTHING
    assert list(supervision.started()) == [number, number]
    assert list(supervision.started()) == []


@given(st.lists(st.tuples(st.sampled_from(FORWARDED), st.booleans()), max_size=30))
def test_a_running_command_hears_every_signal_once(sent: list[tuple[int, bool]]) -> None:
    supervision = running()
    interrupts = 0
    for number, heard in sent:
        told = supervision.signal(number, heard=heard)
        interrupts += number == signal.SIGINT
        if number == signal.SIGINT and interrupts > 1:
            assert told is Do.KILL
        else:
            from_terminal = heard and number in {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
            assert told is (Do.NOTHING if from_terminal else Do.PASS_ON)


@pytest.mark.parametrize("script", ["exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -9 $$"])
def test_the_status_is_the_one_that_a_shell_reports(script: str) -> None:
    returncode = subprocess.run(["sh", "-c", script], check=False).returncode
    shell = subprocess.check_output(
        ["bash", "-c", 'sh -c "$1" 2>/dev/null; echo $?', "bash", script], stderr=subprocess.DEVNULL
    )
    assert shell_status(returncode) == int(shell)

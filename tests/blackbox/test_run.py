"""`dbproxy run`: a command with a database at hand, in a lab."""

import os
import signal
import sys
from pathlib import Path

import pytest
from beside_lab import BesideLab, tells
from commands import Run
from loopback import free_port

from dbproxy.lab import Lab

SQL = "SELECT words FROM greetings WHERE id = 2"
PSQL = ("psql", "-X", "-A", "-t", "-c", SQL)
every_mode = pytest.mark.parametrize("mode", [(), ("--terminate",), ("--tunnel",)])


@pytest.fixture
async def beside(lab: Lab, tmp_path: Path) -> BesideLab:
    return await BesideLab.make(lab, tmp_path)


def noise(err: str) -> list[str]:
    """Lines on standard error, but for the warning that comes with --tunnel."""
    return [line for line in err.splitlines() if "insecure-choice" not in line]


class TestTheCommand:
    """It finds the database, and its exit status is dbproxy's."""

    @every_mode
    async def test_psql_needs_no_options(self, beside: BesideLab, mode: tuple[str, ...]) -> None:
        outcome = await beside.run("run", *mode, "example-server", "--", *PSQL)
        assert (outcome.status, outcome.out) == (0, "bonjour\n"), outcome.err
        assert noise(outcome.err) == []

    @every_mode
    async def test_a_program_finds_everything_in_database_url(
        self, beside: BesideLab, mode: tuple[str, ...]
    ) -> None:
        program = (
            "import os, psycopg\n"
            "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
            "    print(*connection.execute('SELECT current_user, current_database()').fetchone())"
        )
        outcome = await beside.run("run", *mode, "--", sys.executable, "-c", program)
        assert (outcome.status, outcome.out) == (0, "alice example\n"), outcome.err

    async def test_the_service_may_be_left_out(self, beside: BesideLab) -> None:
        outcome = await beside.run("run", "--", "sh", "-c", "echo $DATABASE_NAME $#", "sh", "--")
        assert (outcome.status, outcome.out) == (0, "example 1\n"), outcome.err

    async def test_variables_that_would_lead_elsewhere_are_removed(self, beside: BesideLab) -> None:
        elsewhere = {"PGSERVICE": "x", "PGHOSTADDR": "192.0.2.1", "PGSSLNEGOTIATION": "direct"}
        outcome = await beside.run("run", "--tunnel", "--", *PSQL, env=elsewhere)
        assert (outcome.status, outcome.out) == (0, "bonjour\n"), outcome.err

    async def test_the_port_is_the_one_that_was_asked_for(self, beside: BesideLab) -> None:
        port = free_port()
        command = ("sh", "-c", "echo $PGPORT $DATABASE_PORT $PGHOST")
        outcome = await beside.run("run", f"--port={port}", "--", *command)
        assert outcome.out == f"{port} {port} localhost\n"

    async def test_standard_input_is_the_commands(self, beside: BesideLab) -> None:
        outcome = await beside.run("run", "--", "cat")
        assert (outcome.status, outcome.out, outcome.err) == (0, "", "")

    @pytest.mark.parametrize("status", [0, 1, 3, 255])
    async def test_its_exit_status_is_passed_on(self, beside: BesideLab, status: int) -> None:
        outcome = await beside.run("run", "--", "sh", "-c", f"exit {status}")
        assert (outcome.status, outcome.err) == (status, "")

    async def test_a_command_that_a_signal_ends_is_told_as_shells_tell_it(
        self, beside: BesideLab
    ) -> None:
        outcome = await beside.run("run", "--", "sh", "-c", "kill -KILL $$")
        assert (outcome.status, outcome.err) == (137, "")

    async def test_an_sql_error_is_the_commands_own(self, beside: BesideLab) -> None:
        command = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "SELEC")
        outcome = await beside.run("run", "--", *command)
        assert outcome.status == 1
        assert "dbproxy" not in outcome.err

    async def test_pipes_close_as_usual(self, beside: BesideLab) -> None:
        """Python ignores SIGPIPE, and its children must not."""
        outcome = await beside.run("run", "--", "sh", "-c", "(yes; echo $? >&2) | head -n 1")
        assert outcome.out == "y\n"
        assert outcome.err.split() in (["141"], [])  # a shell that is gone itself says nothing

    async def test_connections_that_outlive_the_command_have_the_drain_time(
        self, beside: BesideLab
    ) -> None:
        script = (
            "psql -X -A -t -c 'SELECT 1' -c 'SELECT pg_sleep(0.5)' -c 'SELECT 42' >late &"
            " until grep -q 1 late; do sleep 0.05; done; exit 5"
        )
        outcome = await beside.run(
            "run", "--tunnel", "--", "sh", "-c", f"cd {beside.home}; {script}"
        )
        assert outcome.status == 5
        assert (beside.home / "late").read_text().split() == ["1", "42"]


class TestWhatCannotBeRun:
    """Exit statuses as shells have them."""

    async def test_a_command_that_does_not_exist_is_127(self, beside: BesideLab) -> None:
        outcome = await beside.run("run", "--", "no-such-program", "secret")
        assert outcome.status == 127
        assert outcome.error == (
            "dbproxy: error: cannot run no-such-program: No such file or directory"
            " [command-not-found]"
        )
        assert "secret" not in outcome.err

    async def test_a_file_that_is_no_program_is_126(self, beside: BesideLab) -> None:
        text = beside.home / "text"
        text.write_text("x\n")
        outcome = await beside.run("run", "--", text)
        assert outcome.status == 126
        assert outcome.error.endswith(f"cannot run {text}: Permission denied [command-unusable]")
        text.chmod(0o700)
        outcome = await beside.run("run", "--", text)
        assert outcome.status == 126
        assert "Exec format error" in outcome.error

    def test_a_command_has_no_workers(self, run: Run) -> None:
        outcome = run("run", "--workers=2", "--", "true")
        assert outcome.status == 2
        assert "no such option --workers here: it is one of `dbproxy db`" in outcome.error

    async def test_no_command_at_all_is_a_usage_error(self, beside: BesideLab) -> None:
        for arguments in (("run", "example-server"), ("run", "--")):
            outcome = await beside.run(*arguments)
            assert outcome.status == 2
            assert outcome.error == "dbproxy: error: there is no command to run [usage]"

    @pytest.mark.parametrize("name", ["run", "connect"])
    async def test_who_puts_the_command_before_the_dashes_is_told_where_it_goes(
        self, beside: BesideLab, name: str
    ) -> None:
        outcome = await beside.run(name, "example-server", "psql", "--", "x")
        assert outcome.status == 2
        words = "`psql` is one word too many: only the service comes before two dashes"
        assert outcome.error == f"dbproxy: error: {words} [usage]"
        assert f"Give the rest behind them: `dbproxy {name} [SERVICE] " in outcome.err


class TestBeforeTheCommand:
    """It is not started where it could not work."""

    async def test_an_upstream_that_is_away_is_waited_for_and_then_told(
        self, beside: BesideLab
    ) -> None:
        await beside.lab.stop_proxy()
        outcome = await beside.run("run", "--ready-timeout=1s", "--", "echo", "started")
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.error.endswith("[upstream-unreachable]")
        assert "waiting-for-upstream" in outcome.err

    async def test_with_no_time_there_is_one_attempt(self, beside: BesideLab) -> None:
        await beside.lab.stop_proxy()
        outcome = await beside.run("run", "--ready-timeout=0", "--", "echo", "started")
        assert (outcome.status, outcome.out) == (1, "")
        assert "waiting-for-upstream" not in outcome.err

    async def test_an_upstream_that_comes_back_in_time_is_no_failure(
        self, beside: BesideLab
    ) -> None:
        await beside.lab.stop_proxy()
        async with beside.running("--log-format=json", "run", "--", *PSQL) as command:
            waiting = await command.event("waiting-for-upstream")
            assert waiting["code"] == "upstream-unreachable"
            assert waiting["level"] == "warning"
            await beside.lab.start_proxy()
            assert await command.ended() == 0
            assert await command.out.first("bonjour")

    async def test_a_certificate_that_is_rejected_is_told(self, beside: BesideLab) -> None:
        beside.lab.reject_certificates()
        outcome = await beside.run("run", "--ready-timeout=0", "--", "echo", "started")
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.error.endswith("[certificate-rejected]")

    async def test_a_port_in_use_is_told(self, beside: BesideLab) -> None:
        async with beside.running("db") as other:
            port = await other.port()
            outcome = await beside.run("run", f"--port={port}", "--", "echo", "started")
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.error.endswith("[address-in-use]")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    async def test_a_signal_ends_the_wait(self, beside: BesideLab, number: signal.Signals) -> None:
        await beside.lab.stop_proxy()
        async with beside.running("--log-format=json", "run", "--", "echo", "started") as command:
            await command.event("waiting-for-upstream")
            assert await command.stop(number) == 128 + number
        assert command.out.received == []


class TestSignals:
    """They are meant for the command."""

    @pytest.mark.parametrize(
        "name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]
    )
    async def test_a_signal_goes_to_the_command(self, beside: BesideLab, name: str) -> None:
        async with beside.running("run", "--", *tells(name)) as command:
            await command.out.first("ready")
            assert await command.stop(getattr(signal, name)) == 7
        assert command.out.received[1:] == [name]
        assert command.err.received == []

    async def test_a_command_may_use_its_database_after_a_signal(self, beside: BesideLab) -> None:
        script = (
            "trap 'psql -X -A -t -c \"SELECT 42\"; exit 9' TERM;"
            " echo ready; while :; do sleep 0.05; done"
        )
        async with beside.running("run", "--", "bash", "-c", script) as command:
            await command.out.first("ready")
            assert await command.stop(signal.SIGTERM) == 9
        assert command.out.received == ["ready", "42"]

    async def test_a_second_sigint_ends_at_once(self, beside: BesideLab) -> None:
        async with beside.running("run", "--", *tells()) as command:
            await command.out.first("ready")
            command.process.send_signal(signal.SIGINT)
            await command.out.first("SIGINT")
            assert await command.stop(signal.SIGINT) == 137

    async def test_what_is_ignored_at_the_start_stays_ignored(self, beside: BesideLab) -> None:
        """As nohup has it: neither dbproxy nor the command ends when the terminal does."""
        shown = "import signal; print(signal.getsignal(signal.SIGHUP).name)"
        words = ("run", "--", sys.executable, "-c", shown)
        outcome = await beside.run(*words, through=("nohup",))
        assert outcome.out == "SIG_IGN\n"


class TestAtATerminal:
    """Its keys reach the whole process group."""

    async def test_ctrl_c_is_delivered_once(self, beside: BesideLab) -> None:
        async with beside.at_terminal("run", "--", *tells("SIGUSR2")) as (command, terminal):
            await command.out.first("ready")
            os.write(terminal, b"\x03")
            await command.out.first("SIGINT")
            assert await command.stop(signal.SIGUSR1, signal.SIGUSR2) == 7
        assert command.out.received.count("SIGINT") == 1

    async def test_a_quit_key_is_delivered_once(self, beside: BesideLab) -> None:
        async with beside.at_terminal("run", "--", *tells("SIGUSR2")) as (command, terminal):
            await command.out.first("ready")
            os.write(terminal, b"\x1c")
            await command.out.first("SIGQUIT")
            assert await command.stop(signal.SIGUSR1, signal.SIGUSR2) == 7
        assert command.out.received.count("SIGQUIT") == 1

    async def test_a_command_that_ctrl_c_ends_is_status_130(self, beside: BesideLab) -> None:
        async with beside.at_terminal("run", "--", "sh", "-c", "echo ready; exec sleep 60") as (
            command,
            terminal,
        ):
            await command.out.first("ready")
            os.write(terminal, b"\x03")
            assert await command.ended() == 130

    async def test_a_second_ctrl_c_ends_at_once(self, beside: BesideLab) -> None:
        async with beside.at_terminal("run", "--", *tells()) as (command, terminal):
            await command.out.first("ready")
            os.write(terminal, b"\x03")
            await command.out.first("SIGINT")
            command.process.send_signal(signal.SIGUSR1)  # comes after it, so dbproxy has had it
            await command.out.first("SIGUSR1")
            os.write(terminal, b"\x03")
            assert await command.ended() == 137

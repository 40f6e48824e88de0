import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from dbproxy.cli import options
from dbproxy.cli.errors import run
from dbproxy.cli.invocation import Invocation, invocation_of
from dbproxy.cli.options import (
    ONE_PORT,
    flags_of,
    global_options,
    settings_from,
    settings_options,
)
from dbproxy.cli.values import TRUTH
from dbproxy.settings import MOST_WORKERS, Mode, Scope, Settings, environment_names
from dbproxy.settings import options as declared_options

Resolve = Callable[..., Settings]


@click.group(params=global_options())
@click.pass_context
def group(context: click.Context, /, **_options: object) -> None:
    invocation_of(context).flags.update(flags_of(context))


seen: list[Settings] = []


@group.command(params=settings_options(*ONE_PORT, Scope.WORKERS, Scope.MESSAGE))
@click.pass_context
def show(context: click.Context, /, **_options: object) -> None:
    seen.append(settings_from(context))


@group.command(params=settings_options(Scope.SERVE, Scope.MESSAGE, Scope.GLOBAL))
@click.pass_context
def tunnels(context: click.Context, /, **_options: object) -> None:
    seen.append(settings_from(context, needs_config=True))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, _, _ in declared_options(*Scope):
        for variable in environment_names(name):
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(options, "DEFAULT_CONFIG", tmp_path / "absent.yaml")
    seen.clear()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    def resolve(*arguments: str, env: Mapping[str, str] | None = None) -> Settings:
        for variable, value in (env or {}).items():
            monkeypatch.setenv(variable, value)
        assert run(group, arguments, Invocation()) == 0
        return seen[-1]

    return resolve


@pytest.fixture
def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    def refusal(*arguments: str, env: Mapping[str, str] | None = None) -> str:
        for variable, value in (env or {}).items():
            monkeypatch.setenv(variable, value)
        assert run(group, arguments, Invocation()) == 2
        return capsys.readouterr().err.splitlines()[0]

    return refusal


def test_without_anything_the_defaults_of_settings_hold(resolve: Resolve) -> None:
    assert resolve("show") == Settings()


def test_every_setting_has_a_flag_of_its_own(resolve: Resolve) -> None:
    settings = resolve(
        *(
            "-c",
            "tbot.yaml",
            "--destination-dir=/opt/machine-id",
            "--proxy",
            "teleport.example.com",
            "--no-discovery",
        ),
        *("--proxy-ca=ca.pem", "--proxy-pin=sha256:a", "--proxy-pin=sha256:b"),
        *(
            "--server-name=web.example.com",
            "--insecure",
            "-d",
            "--log-format=json",
            "show",
            "example-server",
        ),
        *("--listen=tcp://127.0.0.1:1", "--unsafe-listen-anywhere", "--terminate"),
        *("--server-cert=c.pem", "--server-key=k.pem", "-u", "alice", "-n", "example"),
        *("--format=json", "--connect-timeout=1s", "--handshake-timeout=2s"),
        *("--prologue-timeout=3s", "--drain-timeout=0", "--workers=4", "--no-rewrite"),
    )
    assert settings == Settings(
        config=Path("tbot.yaml"),
        destination_dir=Path("/opt/machine-id"),
        proxy="teleport.example.com",
        no_discovery=True,
        proxy_ca=Path("ca.pem"),
        proxy_pin=("sha256:a", "sha256:b"),
        server_name="web.example.com",
        insecure=True,
        debug=True,
        log_format="json",
        service="example-server",
        listen="tcp://127.0.0.1:1",
        unsafe_listen_anywhere=True,
        terminate=True,
        server_cert=Path("c.pem"),
        server_key=Path("k.pem"),
        db_user="alice",
        db_name="example",
        format="json",
        connect_timeout=1.0,
        handshake_timeout=2.0,
        prologue_timeout=3.0,
        drain_timeout=0.0,
        workers=4,
        no_rewrite=True,
    )


def test_every_setting_has_an_environment_variable(resolve: Resolve) -> None:
    environment = {
        "DBPROXY_CONFIG": "tbot.yaml",
        "DBPROXY_DESTINATION_DIR": "/opt/machine-id",
        "DBPROXY_PROXY": "teleport.example.com",
        "DBPROXY_PROXY_CA": "ca.pem",
        "DBPROXY_PROXY_PIN": "sha256:a,sha256:b",
        "DBPROXY_SERVER_NAME": "web.example.com",
        "DBPROXY_INSECURE": "1",
        "DBPROXY_DEBUG": "true",
        "DBPROXY_LOG_FORMAT": "json",
        "DBPROXY_SERVICE": "example-server",
        "DBPROXY_PORT": "5432",
        "DBPROXY_UNSAFE_LISTEN_ANYWHERE": "yes",
        "DBPROXY_TUNNEL": "YES",
        "DBPROXY_DB_USER": "alice",
        "DBPROXY_DB_NAME": "example",
        "DBPROXY_FORMAT": "json",
        "DBPROXY_CONNECT_TIMEOUT": "500ms",
        "DBPROXY_DRAIN_TIMEOUT": "1m",
        "DBPROXY_WORKERS": "3",
    }
    assert resolve("show", env=environment) == Settings(
        config=Path("tbot.yaml"),
        destination_dir=Path("/opt/machine-id"),
        proxy="teleport.example.com",
        proxy_ca=Path("ca.pem"),
        proxy_pin=("sha256:a", "sha256:b"),
        server_name="web.example.com",
        insecure=True,
        debug=True,
        log_format="json",
        service="example-server",
        port=5432,
        unsafe_listen_anywhere=True,
        tunnel=True,
        db_user="alice",
        db_name="example",
        format="json",
        connect_timeout=0.5,
        drain_timeout=60.0,
        workers=3,
    )


def test_a_global_option_may_come_after_the_command_and_then_wins(resolve: Resolve) -> None:
    assert resolve("--proxy=a", "show", "--proxy=b").proxy == "b"
    assert resolve("show", "--proxy=b").proxy == "b"
    assert resolve("--proxy=a", "show").proxy == "a"


def test_the_last_of_two_equal_flags_wins(resolve: Resolve) -> None:
    assert resolve("show", "--port=1", "-p", "2").port == 2


@pytest.mark.parametrize("arguments", [("--proxy=flag", "show"), ("show", "--proxy=flag")])
def test_a_flag_beats_the_environment_on_both_sides_of_the_command(
    resolve: Resolve, arguments: tuple[str, ...]
) -> None:
    assert resolve(*arguments, env={"DBPROXY_PROXY": "environment"}).proxy == "flag"


def test_nonsense_in_the_environment_does_not_matter_where_a_flag_decides(
    resolve: Resolve,
) -> None:
    environment = {"DBPROXY_LOG_FORMAT": "xml", "DBPROXY_PORT": "many"}
    settings = resolve("--log-format=json", "show", "--port=1", env=environment)
    assert (settings.log_format, settings.port) == ("json", 1)


def test_our_environment_variable_beats_that_of_tbot(resolve: Resolve) -> None:
    assert resolve("show", env={"TBOT_CONFIG_PATH": "theirs"}).config == Path("theirs")
    assert resolve("show", env={"DBPROXY_CONFIG": "ours"}).config == Path("ours")


def test_an_empty_environment_variable_counts_as_unset(resolve: Resolve) -> None:
    empty = {"DBPROXY_CONFIG": "", "DBPROXY_PORT": "", "DBPROXY_TUNNEL": "", "DBPROXY_SERVICE": ""}
    assert resolve("show", env=empty) == Settings()


def words_on_the_page() -> tuple[list[str], list[str]]:
    """What the page of options says that means given, and not given."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "options.md").read_text("utf-8")
    sentence = page.split("For a switch, ")[1].split(";")[0]
    given, _, not_given = sentence.partition(" mean given")
    return given.split("`")[1::2], not_given.split("`")[1::2]


def test_a_switch_in_the_environment_takes_the_words_that_the_page_names(
    resolve: Resolve,
) -> None:
    given, not_given = words_on_the_page()
    assert set(given) | set(not_given) == set(TRUTH)
    for word in given:
        assert resolve("show", env={"DBPROXY_INSECURE": word}).insecure is True
    for word in not_given:
        assert resolve("show", env={"DBPROXY_INSECURE": word}).insecure is False


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "False", "NO"])
def test_a_flag_can_be_said_to_be_off_in_the_environment(resolve: Resolve, word: str) -> None:
    assert resolve("show", env={"DBPROXY_INSECURE": word}).insecure is False


def test_a_mode_on_the_command_line_beats_the_other_mode_in_the_environment(
    resolve: Resolve,
) -> None:
    terminate = {
        "DBPROXY_TERMINATE": "1",
        "DBPROXY_SERVER_CERT": "c.pem",
        "DBPROXY_SERVER_KEY": "k.pem",
    }
    assert resolve("show", "--tunnel", env=terminate).mode is Mode.TUNNEL


def test_the_mode_in_the_environment_gives_way_to_terminate(resolve: Resolve) -> None:
    assert resolve("show", "--terminate", env={"DBPROXY_TUNNEL": "1"}).mode is Mode.TERMINATE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--identity=i"], Settings(identity_file=Path("i"))),
        (["--destination-dir=d"], Settings(destination_dir=Path("d"))),
        (
            ["--cert=c", "--key=k", "--ca=a"],
            Settings(cert=Path("c"), key=Path("k"), ca=Path("a")),
        ),
    ],
)
@pytest.mark.parametrize(
    "environment",
    [
        {"DBPROXY_DESTINATION_DIR": "other"},
        {"DBPROXY_IDENTITY_FILE": "other"},
        {"DBPROXY_CERT": "other", "DBPROXY_KEY": "other", "DBPROXY_CA": "other"},
    ],
)
def test_an_identity_on_the_command_line_beats_any_in_the_environment(
    resolve: Resolve, arguments: list[str], expected: Settings, environment: dict[str, str]
) -> None:
    assert resolve("show", *arguments, env=environment) == expected


def test_a_port_on_the_command_line_beats_listen_in_the_environment(resolve: Resolve) -> None:
    settings = resolve("show", "--port=1", env={"DBPROXY_LISTEN": "tcp://127.0.0.1:2"})
    assert (settings.port, settings.listen) == (1, None)


def test_listen_on_the_command_line_beats_a_port_in_the_environment(resolve: Resolve) -> None:
    settings = resolve("show", "--listen=tcp://127.0.0.1:2", env={"DBPROXY_PORT": "1"})
    assert (settings.port, settings.listen) == (0, "tcp://127.0.0.1:2")


def test_tbots_usual_configuration_is_used_when_it_exists(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = tmp_path / "tbot.yaml"
    usual.touch()
    monkeypatch.setattr(options, "DEFAULT_CONFIG", usual)
    assert resolve("show").config == usual
    assert resolve("show", "--destination-dir=d").config == usual
    assert resolve("show", "--config=other").config == Path("other")
    assert resolve("show", "--destination-dir=d", "--proxy=p").config is None
    assert resolve("tunnels", "--destination-dir=d", "--proxy=p").config == usual


def test_the_tunnels_of_a_file_have_the_options_that_hold_for_all_of_them(
    resolve: Resolve, refusal: Callable[..., str]
) -> None:
    settings = resolve("-c", "tbot.yaml", "tunnels", "--format=json", "--drain-timeout=1s")
    assert settings == Settings(config=Path("tbot.yaml"), format="json", drain_timeout=1.0)
    for name, option, _ in declared_options(Scope.DB, Scope.WORKERS):
        assert "no such option" in refusal("tunnels", f"{option.flags[-1]}=1"), name
    assert "unexpected extra argument" in refusal("tunnels", "example-server")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "--port=99999"), "--port: `99999` is not a port: give 0 to 65535"),
        (("show", "--port=-1"), "--port: `-1` is not a port: give 0 to 65535"),
        (("show", "--port=٣"), "--port: `٣` is not a port: give 0 to 65535"),
        (("show", "--format=xml"), "--format: `xml` is not one of: text, json"),
        (("--log-format=xml", "show"), "--log-format: `xml` is not one of: console, json"),
        (("show", "--destination-dir="), "--destination-dir: the value is empty"),
        (("show", ""), "SERVICE: the value is empty"),
        (("show", "a", "b"), "got unexpected extra argument (b)"),
        (("show", "--connect-timeout=0"), "--connect-timeout must be more than 0 seconds"),
        (
            ("show", "--prewarm=-1"),
            "--prewarm: `-1` is not a whole number: give for example 4",
        ),
        (("show", "--prewarm=1001"), "--prewarm must be 0 to 1000"),
        (
            ("show", "--drain-timeout=soon"),
            "--drain-timeout: `soon` is not a duration: give for example 500ms, 10s, 1m30s or 2.5",
        ),
        (
            ("show", "--tunnel", "--terminate"),
            "--tunnel and --terminate contradict each other: give one of them",
        ),
        (
            ("show", "--port=1", "--listen=tcp://127.0.0.1:2"),
            "--port and --listen contradict each other: give one of them",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    refusal: Callable[..., str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert refusal(*arguments) == f"dbproxy: error: {sentence} [usage]"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DBPROXY_PORT", "many", "`many` is not a port: give 0 to 65535"),
        (
            "DBPROXY_PORT",
            "tcp://10.0.0.1:5432",
            (
                "`tcp://10.0.0.1:5432` is not a port: give 0 to 65535. Kubernetes sets DBPROXY_PORT"
                " so where a Service is called dbproxy: put `enableServiceLinks: false` into the"
                " pod's specification"
            ),
        ),
        ("DBPROXY_INSECURE", "maybe", "`maybe` is neither yes nor no: give 1 or 0"),
        ("DBPROXY_LOG_FORMAT", "xml", "`xml` is not one of: console, json"),
    ],
)
def test_a_wrong_value_in_the_environment_is_named_by_its_variable(
    refusal: Callable[..., str], variable: str, value: str, sentence: str
) -> None:
    assert (
        refusal("show", env={variable: value}) == f"dbproxy: error: {variable}: {sentence} [usage]"
    )


def test_two_contradicting_variables_are_refused(refusal: Callable[..., str]) -> None:
    both = {"DBPROXY_TUNNEL": "1", "DBPROXY_TERMINATE": "1"}
    assert refusal("show", env=both) == (
        "dbproxy: error: DBPROXY_TUNNEL and DBPROXY_TERMINATE contradict each other: give one of"
        " them [usage]"
    )


def test_a_flag_and_a_variable_that_do_not_go_together_are_named_as_what_they_are(
    refusal: Callable[..., str],
) -> None:
    assert refusal("show", "--server-cert=x", env={"DBPROXY_SERVER_KEY": "y"}) == (
        "dbproxy: error: --server-cert is for --terminate: other modes show no certificate [usage]"
    )
    assert refusal("show", env={"DBPROXY_SERVER_CERT": "x", "DBPROXY_SERVER_KEY": ""}) == (
        "dbproxy: error: DBPROXY_SERVER_CERT and --server-key go together: give both or none"
        " [usage]"
    )


@pytest.mark.parametrize(
    ("environment", "is_off"),
    [
        ({}, False),
        ({"TBOT_USE_PROXY_ADDR": "yes"}, True),
        ({"TBOT_USE_PROXY_ADDR": ""}, False),
        ({"DBPROXY_NO_DISCOVERY": "0", "TBOT_USE_PROXY_ADDR": "yes"}, False),
    ],
)
def test_tbots_own_variable_switches_discovery_off(
    resolve: Resolve, environment: dict[str, str], is_off: bool
) -> None:
    assert resolve("show", env=environment).no_discovery is is_off


def test_a_repeatable_flag_beats_its_environment_and_may_come_before_the_command(
    resolve: Resolve,
) -> None:
    environment = {"DBPROXY_PROXY_PIN": "sha256:a,sha256:b"}
    assert resolve("show", "--proxy-pin=sha256:c", env=environment).proxy_pin == ("sha256:c",)
    early = resolve("--proxy-pin=sha256:d", "--proxy-pin=sha256:e", "show", env=environment)
    assert early.proxy_pin == ("sha256:d", "sha256:e")


def test_auto_is_the_number_of_cpus_that_the_process_may_use(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 5, 7}, raising=False)
    assert resolve("show", "--workers=auto").workers == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(1000)))
    assert resolve("show", env={"DBPROXY_WORKERS": "auto"}).workers == MOST_WORKERS


@pytest.mark.parametrize(("count", "workers"), [(4, 4), (None, 1)])
def test_where_the_system_does_not_tell_auto_is_the_number_of_all_cpus(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch, count: int | None, workers: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert resolve("show", "--workers=auto").workers == workers


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "+2", "9" * 10, "AUTO", "²"])
def test_what_is_neither_a_number_of_workers_nor_auto_is_refused(
    refusal: Callable[..., str], text: str
) -> None:
    assert refusal("show", f"--workers={text}").endswith(
        f" --workers: `{text}` is neither a number of processes nor auto [usage]"
    )


@pytest.mark.parametrize("text", ["0", "257", "999999999"])
def test_too_few_and_too_many_workers_are_refused(refusal: Callable[..., str], text: str) -> None:
    assert "--workers must be 1 to 256" in refusal("show", f"--workers={text}")
    assert "DBPROXY_WORKERS must be 1 to 256" in refusal("show", env={"DBPROXY_WORKERS": text})

"""Every option once: declared completely, and contradictions refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dbproxy.errors import Code, UsageError
from dbproxy.settings import Kind, Mode, Scope, Settings, environment_names, option_of, options

FIELDS = dataclasses.fields(Settings)
CERT, KEY = Path("server.crt"), Path("server.key")
FILES = {"cert": CERT, "key": KEY, "ca": CERT}


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        (Settings(), Mode.PASSTHROUGH),
        (Settings(tunnel=True), Mode.TUNNEL),
        (Settings(terminate=True), Mode.TERMINATE),
    ],
)
def test_the_mode_follows_from_the_flags(given: Settings, mode: Mode) -> None:
    assert given.mode is mode


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tunnel": True, "terminate": True}, ["--tunnel", "--terminate"]),
        ({"port": 5432, "listen": "tcp://127.0.0.1:5432"}, ["--port", "--listen"]),
        ({"terminate": True, "server_cert": CERT}, ["--server-cert", "--server-key"]),
        ({"terminate": True, "server_key": KEY}, ["--server-cert", "--server-key"]),
        ({"server_cert": CERT, "server_key": KEY}, ["--server-cert", "--terminate"]),
        ({"tunnel": True, "server_cert": CERT, "server_key": KEY}, ["--terminate"]),
        ({"port": -1}, ["--port", "-1"]),
        ({"port": 65536}, ["--port", "65536"]),
        ({"connect_timeout": 0}, ["--connect-timeout"]),
        ({"handshake_timeout": 0}, ["--handshake-timeout"]),
        ({"prologue_timeout": -1}, ["--prologue-timeout"]),
        ({"drain_timeout": -0.1}, ["--drain-timeout"]),
        ({"workers": 0}, ["--workers", "256"]),
        ({"workers": 257}, ["--workers", "256"]),
        ({"destination_dir": KEY, "identity_file": KEY}, ["--destination-dir", "--identity"]),
        ({"destination_dir": KEY, **FILES}, ["--destination-dir", "--cert"]),
        ({"identity_file": KEY, "ca": CERT}, ["--identity", "--cert"]),
        ({"identity_file": KEY, **FILES}, ["--identity", "--cert"]),
        ({"cert": CERT}, ["--cert", "--key", "--ca"]),
        ({"key": KEY, "ca": CERT}, ["--cert", "--key", "--ca"]),
    ],
)
def test_what_contradicts_itself_or_makes_no_sense_is_refused(
    given: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**given)
    assert caught.value.code is Code.USAGE
    assert all(word in caught.value.message for word in words)


@pytest.mark.parametrize(
    "given",
    [
        {"port": 0},
        {"port": 65535},
        {"listen": "tcp://127.0.0.1:5432"},
        {"drain_timeout": 0},
        {"workers": 256},
        {"identity_file": KEY},
        FILES,
        {"terminate": True},
        {"terminate": True, "server_cert": CERT, "server_key": KEY},
    ],
)
def test_what_makes_sense_is_taken(given: dict[str, Any]) -> None:
    settings = Settings(**given)
    assert {name: getattr(settings, name) for name in given} == given


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, False),
        ({"config": KEY}, False),
        ({"destination_dir": KEY}, True),
        ({"identity_file": KEY}, True),
        (FILES, True),
    ],
)
def test_whether_the_identity_is_named(given: dict[str, Any], named: bool) -> None:
    assert Settings(**given).names_identity is named


@pytest.mark.parametrize("setting", FIELDS, ids=lambda setting: setting.name)
def test_each_setting_is_declared_completely(setting: "dataclasses.Field[Any]") -> None:
    option = option_of(setting)
    assert option.help.endswith(".")
    assert (option.flags == ()) is (option.scope is Scope.ARGUMENT)
    assert all(flag.startswith("-") for flag in option.flags)
    assert bool(option.choices) is (option.kind is Kind.CHOICE)
    if option.kind is Kind.FLAG:
        assert setting.default is False
        assert option.metavar is None
    elif option.kind is not Kind.CHOICE:
        assert option.metavar
    if option.choices:
        assert setting.default in option.choices


def test_no_flag_is_declared_twice() -> None:
    flags = [flag for setting in FIELDS for flag in option_of(setting).flags]
    assert len(flags) == len(set(flags))


def test_the_options_of_all_scopes_together_are_the_settings() -> None:
    declared = [name for name, _option, _default in options(*Scope)]
    assert sorted(declared) == sorted(setting.name for setting in FIELDS)
    assert [name for name, _option, _default in options(Scope.ARGUMENT)] == ["service"]


def test_each_setting_has_its_own_environment_variable() -> None:
    assert environment_names("config") == ("DBPROXY_CONFIG", "TBOT_CONFIG_PATH")
    assert environment_names("no_discovery") == ("DBPROXY_NO_DISCOVERY", "TBOT_USE_PROXY_ADDR")
    assert environment_names("drain_timeout") == ("DBPROXY_DRAIN_TIMEOUT",)


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1

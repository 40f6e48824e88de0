import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import click
import pytest
from started import PASSTHROUGH, TUNNEL

from dbproxy._version import __version__
from dbproxy.cli.announce import announce, announce_tunnel, start_message, tunnel_message
from dbproxy.settings import Settings


def test_the_start_message_names_address_credentials_and_command() -> None:
    assert start_message(PASSTHROUGH, Settings(port=12345)).splitlines() == [
        "Started DB proxy on 127.0.0.1:12345",
        "Use following credentials to connect to the example-server proxy:",
        "  ca_file=/opt/machine-id/teleport-host-ca.crt",
        "  cert_file=/opt/machine-id/tlscert",
        "  key_file=/opt/machine-id/key",
        "Connect with:",
        "  psql 'host=localhost port=12345'",
    ]


def test_a_free_port_comes_with_a_hint_how_to_choose_it() -> None:
    assert start_message(PASSTHROUGH, Settings()).splitlines()[:2] == [
        "Started DB proxy on 127.0.0.1:12345",
        "The port is a free one; choose it yourself with the --port flag.",
    ]


def test_an_address_of_the_users_own_needs_no_hint() -> None:
    started = replace(PASSTHROUGH, address="unix:///run/example/.s.PGSQL.5432")
    settings = Settings(listen="unix:///run/example/.s.PGSQL.5432")
    assert "--port" not in start_message(started, settings)


def test_a_tunnel_needs_no_credentials() -> None:
    settings = Settings(tunnel=True, port=12345)
    assert start_message(TUNNEL, settings).splitlines() == [
        "Started DB proxy on 127.0.0.1:12345",
        "Connect with:",
        "  psql 'host=localhost port=12345'",
    ]


def test_json_is_one_object_on_one_line() -> None:
    text = start_message(PASSTHROUGH, Settings(format="json"))
    assert "\n" not in text
    assert json.loads(text) == {
        "address": "127.0.0.1:12345",
        "mode": "passthrough",
        "service": "example-server",
        "protocol": "postgres",
        "user": "alice",
        "database": "example",
        "ca_file": "/opt/machine-id/teleport-host-ca.crt",
        "cert_file": "/opt/machine-id/tlscert",
        "key_file": "/opt/machine-id/key",
        "connect_command": "psql 'host=localhost port=12345'",
        "version": __version__,
    }


def test_json_of_a_tunnel_has_the_same_keys_without_files() -> None:
    facts = json.loads(start_message(TUNNEL, Settings(format="json", tunnel=True)))
    assert (facts["mode"], facts["ca_file"], facts["key_file"]) == ("tunnel", None, None)


def test_one_of_many_tunnels_is_one_line() -> None:
    assert tunnel_message("reports", TUNNEL, Settings()) == (
        "Started tunnel reports on 127.0.0.1:12345"
    )
    text = tunnel_message("reports", TUNNEL, Settings(format="json"))
    assert "\n" not in text
    facts = json.loads(text)
    assert facts.pop("tunnel") == "reports"
    assert facts == json.loads(start_message(TUNNEL, Settings(format="json")))


@pytest.fixture
def reader_gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody reads standard output any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        yield


@pytest.mark.usefixtures("reader_gone")
def test_a_reader_that_has_gone_away_does_not_end_the_tunnels() -> None:
    for name in ("one", "two"):
        announce_tunnel(name, TUNNEL, Settings())


@pytest.mark.usefixtures("reader_gone")
def test_a_reader_that_has_gone_away_does_not_end_the_proxy() -> None:
    announce(PASSTHROUGH, Settings())


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115 - closing it raises what we test for
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(click.ClickException, match="No space left on device"):
        announce(PASSTHROUGH, Settings())
    with pytest.raises(OSError, match="No space left on device"):
        full.close()

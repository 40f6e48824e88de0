"""From tbot's configuration to the settings of each tunnel."""

from pathlib import Path

import pytest
import yaml

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.fleet import Tunnel, tunnels_of
from dbproxy.fleet.tunnels import settings_for
from dbproxy.identity import TbotConfig, parse_tbot_config
from dbproxy.settings import Mode, Settings


def config(*services: str) -> TbotConfig:
    lines = ["version: v2", "services:", *(f"  - {service}" for service in services)]
    return parse_tbot_config("\n".join(lines).encode(), Path("tbot.yaml"))


def tunnel_entry(service: str = "one", listen: str = "tcp://127.0.0.1:5432", more: str = "") -> str:
    return f"{{type: database-tunnel, listen: '{listen}', service: {service}{more}}}"


def output(service: str, directory: str, more: str = "") -> str:
    return f"{{type: database, service: {service}, destination: {{path: {directory}}}{more}}}"


def tunnel(
    service: str = "one", username: str | None = None, database: str | None = None
) -> Tunnel:
    return Tunnel(
        name="example",
        listen="tcp://127.0.0.1:5432",
        service=service,
        username=username,
        database=database,
    )


def test_each_tunnel_service_is_a_tunnel_in_the_order_of_the_file() -> None:
    found = tunnels_of(
        config(
            tunnel_entry("one", more=", name: first, username: alice, database: example"),
            output("one", "/one"),
            tunnel_entry("two", "unix:///run/app/.s.PGSQL.5432"),
        )
    )
    assert found == (
        Tunnel(
            name="first",
            listen="tcp://127.0.0.1:5432",
            service="one",
            username="alice",
            database="example",
        ),
        Tunnel(
            name="two",
            listen="unix:///run/app/.s.PGSQL.5432",
            service="two",
            username=None,
            database=None,
        ),
    )


def test_names_are_unlike_each_other() -> None:
    found = tunnels_of(
        config(
            tunnel_entry("one", "tcp://127.0.0.1:1"),
            tunnel_entry("one", "tcp://127.0.0.1:2"),
            tunnel_entry("one", "tcp://127.0.0.1:3", more=", name: named"),
        )
    )
    assert [tunnel.name for tunnel in found] == [
        "one (tcp://127.0.0.1:1)",
        "one (tcp://127.0.0.1:2)",
        "named",
    ]


@pytest.mark.parametrize("entries", [(), (output("one", "/one"),)])
def test_a_configuration_without_tunnels_is_refused_with_an_example(
    entries: tuple[str, ...],
) -> None:
    with pytest.raises(UsageError, match=r"^tbot\.yaml has no service of type database") as caught:
        tunnels_of(config(*entries))
    example = caught.value.next_step.partition(": ")[2]
    assert tunnels_of(parse_tbot_config(f"services: [{example[2:]}]".encode(), Path("x")))


@pytest.mark.parametrize("listen", ["nowhere", "udp://127.0.0.1:1", "unix://", "tcp://127.0.0.1"])
def test_a_listen_that_is_no_address_is_named_with_its_place(listen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tunnels_of(config(tunnel_entry(listen=listen)))
    assert caught.value.code is Code.CONFIG_MALFORMED
    assert caught.value.message == (
        "tbot.yaml:3:37: services[0].listen: must be tcp://HOST:PORT or unix:///PATH,"
        f" not {listen!r}"
    )


def test_a_tunnel_that_other_hosts_can_reach_needs_the_option() -> None:
    everywhere = config(tunnel_entry(listen="tcp://0.0.0.0:5432"))
    with pytest.raises(UsageError) as caught:
        tunnels_of(everywhere)
    assert caught.value.message == (
        "tbot.yaml:3:37: services[0].listen: tcp://0.0.0.0:5432 can be reached from other hosts"
    )
    assert "--unsafe-listen-anywhere" in caught.value.next_step
    (found,) = tunnels_of(everywhere, anywhere=True)
    assert found.listen == "tcp://0.0.0.0:5432"


def test_the_settings_are_those_of_all_tunnels_with_what_is_the_tunnels_own() -> None:
    base = Settings(proxy="teleport.example.com", drain_timeout=3.0, port=1234)
    settings = settings_for(
        tunnel("one", "alice", "example"), base, config(output("two", "/two"), output("one", "/1"))
    )
    assert settings.destination_dir == Path("/1")
    assert (settings.service, settings.db_user, settings.db_name) == ("one", "alice", "example")
    assert (settings.listen, settings.port) == ("tcp://127.0.0.1:5432", 0)
    assert settings.mode is Mode.TUNNEL
    assert (settings.proxy, settings.drain_timeout) == ("teleport.example.com", 3.0)


def test_of_several_outputs_for_the_service_user_and_database_decide() -> None:
    both = config(
        output("one", "/alice", ", username: alice, database: x"),
        output("one", "/bob", ", username: bob, database: x"),
    )
    assert settings_for(tunnel("one", "bob", "x"), Settings(), both).destination_dir == Path("/bob")


CERT, KEY, CA = Path("tls.crt"), Path("tls.key"), Path("ca.crt")


@pytest.mark.parametrize(
    "base",
    [
        Settings(destination_dir=Path("/named")),
        Settings(identity_file=Path("/named/identity")),
        Settings(cert=CERT, key=KEY, ca=CA),
    ],
)
def test_an_output_of_the_file_goes_before_what_is_named_for_the_others(base: Settings) -> None:
    known = config(output("one", "/one"))
    found, other = (settings_for(tunnel(service), base, known) for service in ("one", "two"))
    assert found.destination_dir == Path("/one")
    assert (found.identity_file, found.cert, found.key, found.ca) == (None, None, None, None)
    assert other.destination_dir == base.destination_dir
    assert other.identity_file == base.identity_file
    assert (other.cert, other.key, other.ca) == (base.cert, base.key, base.ca)


def refuse(wanted: Tunnel, known: TbotConfig) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        settings_for(wanted, Settings(), known)
    assert caught.value.code is Code.DESTINATION_NOT_FOUND
    return caught.value


@pytest.mark.parametrize(
    "known",
    [
        config(tunnel_entry("one")),
        config(tunnel_entry("one"), output("two", "/two")),
        config("{type: database, service: one, destination: {type: memory}}"),
    ],
)
def test_without_an_output_the_next_step_shows_the_one_to_add(known: TbotConfig) -> None:
    error = refuse(tunnel("one", "alice", "007"), known)
    to_add = error.next_step.rpartition("own: ")[2]
    assert yaml.safe_load(to_add) == [
        {
            "type": "database",
            "service": "one",
            "username": "alice",
            "database": "007",
            "destination": {"type": "directory", "path": "/opt/machine-id"},
        }
    ]
    assert "\n" not in to_add


def test_when_several_outputs_fit_equally_well_the_next_step_says_how_to_choose() -> None:
    error = refuse(tunnel("one"), config(output("one", "/a"), output("one", "/b")))
    assert "more than one database output" in error.message
    assert "`username` and `database`" in error.next_step

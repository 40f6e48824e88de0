"""tbot's configuration file, in both versions."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.errors import Code, ConfigError
from dbproxy.identity import (
    DestinationEntry,
    Format,
    Lifetime,
    TbotConfig,
    TunnelService,
    load_tbot_config,
    parse_tbot_config,
)

SOURCE = Path("/etc/tbot.yaml")

LIFETIME = Lifetime(certificate_ttl=timedelta(hours=1), renewal_interval=timedelta(minutes=20))

VERSION_1 = """\
auth_server: "teleport.example.com:443"
onboarding:
  join_method: token
  token: "abc"
  ca_pins: ["sha256:00"]
storage:
  directory: /var/lib/teleport/bot
certificate_ttl: 60m
renewal_interval: 20m
oneshot: false
destinations:
  - directory: /opt/machine-id
    roles: [access]
    database: {service: example-server, username: alice, database: example}
    configs: [mongo, {tls: {prefix: tls}}]
  - directory:
      path: /opt/ssh
      symlinks: insecure
      acls: off
  - directory: /opt/other
    database:
      service: other-server
"""

VERSION_2 = """\
version: v2
proxy_server: teleport.example.com:443
onboarding: {join_method: token, token: abc}
storage: {type: directory, path: /var/lib/teleport/bot, symlinks: secure, acls: try}
credential_ttl: 1h0m0s
renewal_interval: 20m0s
insecure: true
leeway: 5m
outputs:
  - type: database
    destination: {type: directory, path: /opt/machine-id, symlinks: try-secure, acls: try}
    roles: [access]
    format: tls
    service: example-server
    database: example
    username: alice
  - type: identity
    destination:
      type: directory
      path: /opt/ssh
services:
  - type: database-tunnel
    name: my-tunnel
    listen: tcp://127.0.0.1:25432
    service: tunnel-server
    database: postgres
    username: bob
  - type: database
    destination: {type: kubernetes_secret, name: secret}
    service: in-kubernetes
  - type: something-new
    destination: [whatever]
    service: {}
"""


def parse(text: str) -> TbotConfig:
    return parse_tbot_config(text.encode(), SOURCE)


def refuse(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.code is Code.CONFIG_MALFORMED
    return str(caught.value).removeprefix(f"{SOURCE}:")


def entry(
    line: int,
    kind: str,
    directory: str | None = None,
    service: str | None = None,
    username: str | None = None,
    database: str | None = None,
    **more: Any,
) -> DestinationEntry:
    return DestinationEntry(
        directory=Path(directory) if directory is not None else None,
        service=service,
        username=username,
        database=database,
        kind=kind,
        line=line,
        **({"lifetime": LIFETIME} | more),
    )


def test_version_1_is_read() -> None:
    assert parse(VERSION_1) == TbotConfig(
        path=SOURCE,
        proxy_server=None,
        auth_server="teleport.example.com:443",
        insecure=False,
        ca_path=None,
        lifetime=LIFETIME,
        entries=(
            entry(
                12,
                "database",
                "/opt/machine-id",
                "example-server",
                "alice",
                "example",
                formats=(Format.MONGO, Format.TLS),
            ),
            entry(16, "identity", "/opt/ssh"),
            entry(20, "database", "/opt/other", "other-server"),
        ),
    )


def test_version_2_is_read() -> None:
    assert parse(VERSION_2) == TbotConfig(
        path=SOURCE,
        proxy_server="teleport.example.com:443",
        auth_server=None,
        insecure=True,
        ca_path=None,
        lifetime=LIFETIME,
        entries=(
            entry(
                10,
                "database",
                "/opt/machine-id",
                "example-server",
                "alice",
                "example",
                formats=(Format.TLS,),
            ),
            entry(17, "identity", "/opt/ssh"),
            entry(
                22,
                "database-tunnel",
                None,
                "tunnel-server",
                "bob",
                "postgres",
                tunnel=TunnelService(
                    name="my-tunnel",
                    listen="tcp://127.0.0.1:25432",
                    place=f"{SOURCE}:24:13: services[0].listen",
                ),
            ),
            entry(28, "database", None, "in-kubernetes"),
            entry(31, "something-new"),
        ),
    )


def test_a_configuration_may_name_nothing_that_matters_here() -> None:
    config = parse("oneshot: true")
    assert config == TbotConfig(
        path=SOURCE,
        proxy_server=None,
        auth_server=None,
        insecure=False,
        ca_path=None,
        lifetime=Lifetime(),
        entries=(),
    )


@pytest.mark.parametrize("version", ["version: v1", "version: v2", "version: ''", "version:"])
def test_known_versions_are_accepted(version: str) -> None:
    assert parse(f"{version}\noneshot: true").entries == ()


@pytest.mark.parametrize("key", ["destinations", "outputs", "services", "proxy_server"])
def test_a_key_without_a_value_is_as_good_as_none(key: str) -> None:
    assert parse(f"{key}:\noneshot: true").entries == ()


def test_names_that_yaml_would_convert_stay_as_they_are_written() -> None:
    text = "outputs: [{type: database, destination: {path: /x}, service: on, database: 007}]"
    (only,) = parse(text).entries
    assert (only.service, only.database) == ("on", "007")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty"),
        ("- a", "1:1: must be a mapping, not a list"),
        ("version: v3", "1:10: version: must be v1 or v2, not 'v3'"),
        ("version: [v2]", "1:10: version: must be text, not a list"),
        ("insecure: maybe", "1:11: insecure: must be true or false"),
        ("proxy_server: {}", "1:15: proxy_server: must be text, not a mapping"),
        ("outputs: {}", "1:10: outputs: must be a list, not a mapping"),
        ("outputs: [x]", "1:11: outputs[0]: must be a mapping, not a single value"),
        ("outputs:\n  - service: x\n", "2:5: outputs[0].type: is missing"),
        ("outputs:\n  - type: database\n", "2:5: outputs[0].destination: is missing"),
        (
            "outputs:\n  - type: database\n    destination: {type: directory}\n",
            "3:18: outputs[0].destination.path: is missing",
        ),
        (
            "outputs:\n  - type: database\n    destination: {path: ''}\n",
            "3:25: outputs[0].destination.path: must not be empty",
        ),
        (
            "outputs:\n  - type: database\n    destination: {path: /x}\n",
            "2:5: outputs[0].service: is missing",
        ),
        ("services: [{type: database-tunnel}]", "1:12: services[0].service: is missing"),
        (
            "destinations: [{directory: /x, database: {}}]",
            "1:42: destinations[0].database.service: is missing",
        ),
        (
            "destinations: [{directory: /x, database: x}]",
            "1:42: destinations[0].database: must be a mapping, not a single value",
        ),
        ("destinations: [{directory: ''}]", "1:28: destinations[0].directory: must not be empty"),
        ("destinations: [{directory: {}}]", "1:28: destinations[0].directory.path: is missing"),
        (
            'destinations: [{directory: "/x\\0"}]',
            "1:28: destinations[0].directory: must not hold control characters",
        ),
        ("a: 1\na: 2", "2:1: a: the key appears twice"),
        ("a: [", "1:5: while parsing a flow node"),
    ],
)
def test_a_malformed_key_is_named_with_its_place(text: str, message: str) -> None:
    assert refuse(text).startswith(message)


@pytest.mark.parametrize("text", ["", "root:x:0:0:root:/root:/bin/bash", "- a"])
def test_of_a_file_that_is_something_else_no_key_is_to_be_corrected(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.next_step.startswith("Check that this is the configuration file")


def test_a_malformed_duration_is_named_with_its_place() -> None:
    message = refuse("\nrenewal_interval: 20 minutes")
    assert message == (
        "2:19: renewal_interval: must be a duration such as 20m or 1h0m0s, not '20 minutes'"
    )


def test_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_text(VERSION_2)
    config = load_tbot_config(path)
    assert config.path == path
    assert len(config.entries) == 5


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_text("version: v3")
    with pytest.raises(ConfigError, match=f"^{path}:1:10: version: "):
        load_tbot_config(path)


def unreadable(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_tbot_config(path)
    assert caught.value.code is Code.CONFIG_UNREADABLE
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert unreadable(path) == f"the tbot configuration {path} does not exist"


def test_a_file_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "tbot.yaml"
    assert unreadable(path) == f"the tbot configuration {path} cannot be read: Not a directory"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert unreadable(tmp_path).endswith("not a regular file")


def test_a_fifo_does_not_hold_the_reader_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert unreadable(tmp_path / "fifo").endswith("not a regular file")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_bytes(b"#" * (256 * 1024 + 1))
    assert unreadable(path).endswith("has more than 262144 bytes")


def attempt(text: str) -> TbotConfig | ConfigError:
    try:
        return parse(text)
    except ConfigError as error:
        return error


@given(version=st.sampled_from([VERSION_1, VERSION_2]), data=st.data())
@settings(deadline=None, max_examples=150)
def test_a_file_cut_and_patched_anywhere_gives_entries_or_a_config_error(
    version: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(version)))
    end = data.draw(st.integers(start, len(version)))
    patch = data.draw(st.sampled_from(["", "{", "[", "- ", ":", "null", "*a", '"', "\n", "\0"]))
    outcome = attempt(version[:start] + patch + version[end:])
    if isinstance(outcome, ConfigError):
        assert outcome.code is Code.CONFIG_MALFORMED
        assert str(outcome).startswith(f"{SOURCE}:")
    else:
        assert len(outcome.entries) <= 5

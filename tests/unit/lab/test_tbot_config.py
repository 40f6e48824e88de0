from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.lab.errors import TbotConfigError
from dbproxy.lab.tbot_config import FileNames, Output, TbotConfig, load_tbot_config

V1 = """\
auth_server: "teleport.example.com:443"
onboarding:
  join_method: token
  token: "abc"
  ca_pins: ["sha256:00", "sha256:11"]
  ca_path: /path/ca.pem
storage:
  directory: /var/lib/teleport/bot
certificate_ttl: 60s
renewal_interval: 20s
oneshot: true
debug: false
diag_addr: 127.0.0.1:3001
destinations:
  - directory: /opt/machine-id
    roles: [access]
    database: {service: example-server, username: alice, database: example}
    configs: [mongo, {tls: {prefix: web}}, {identity: {file_name: id}}]
  - directory: {path: /opt/other, symlinks: insecure, acls: "off"}
    app: dashboard
"""

V2 = """\
version: v2
proxy_server: teleport.example.com:443
onboarding: {join_method: token, token: abc}
storage: {type: directory, path: /var/lib/teleport/bot, symlinks: secure, acls: try}
credential_ttl: 1h30m0s
renewal_interval: 1m
outputs:
  - type: database
    destination: {type: directory, path: /opt/machine-id, symlinks: try-secure, acls: try}
    roles: [access]
    format: tls
    service: example-server
    database: example
    username: alice
  - type: kubernetes
    destination: {type: kubernetes_secret, name: x}
    anything: goes
services:
  - type: database-tunnel
    listen: tcp://127.0.0.1:25432
    service: example-server
    database: example
    username: alice
  - type: identity
    destination: {type: directory, path: /opt/identity}
  - type: database
    name: second
    destination: {type: directory, path: /opt/second}
    service: other-server
    credential_ttl: 5m
    renewal_interval: 30s
"""


ROUTE = "  service: x\n  destination: {type: directory, path: /d}"


def load(text: str) -> TbotConfig:
    return load_tbot_config(text, "tbot.yaml")


def test_version_1_is_read() -> None:
    assert load(V1) == TbotConfig(
        version="v1",
        outputs=(
            Output(
                Path("/opt/machine-id"),
                service="example-server",
                db_user="alice",
                db_name="example",
                roles=("access",),
                templates=("mongo", "tls", "identity"),
                names=FileNames(tls_prefix="web", identity="id"),
            ),
            Output(Path("/opt/other")),
        ),
        token="abc",
        ca_pins=("sha256:00", "sha256:11"),
        auth_server="teleport.example.com:443",
        certificate_ttl=timedelta(seconds=60),
        renewal_interval=timedelta(seconds=20),
        oneshot=True,
    )


def test_version_2_is_read_and_other_types_are_passed_over() -> None:
    assert load(V2) == TbotConfig(
        version="v2",
        outputs=(
            Output(Path("/opt/identity")),
            Output(
                Path("/opt/second"),
                service="other-server",
                certificate_ttl=timedelta(minutes=5),
                renewal_interval=timedelta(seconds=30),
            ),
            Output(
                Path("/opt/machine-id"),
                service="example-server",
                db_user="alice",
                db_name="example",
                roles=("access",),
                templates=("tls",),
            ),
        ),
        token="abc",
        proxy_server="teleport.example.com:443",
        certificate_ttl=timedelta(minutes=90),
        renewal_interval=timedelta(minutes=1),
    )


def test_defaults_are_those_of_tbot() -> None:
    config = load("")
    assert config == TbotConfig("v1", ())
    assert config.certificate_ttl == timedelta(hours=1)
    assert config.renewal_interval == timedelta(minutes=20)


def test_the_shortest_interval_counts() -> None:
    assert load(V2).shortest_interval == timedelta(seconds=30)
    assert load(V1).shortest_interval == timedelta(seconds=20)


def test_an_explicit_version_1_is_read_like_none() -> None:
    assert load("version: v1\n" + V1) == load(V1)


def test_version_2_still_reads_the_older_name_of_the_lifetime() -> None:
    assert load("version: v2\ncertificate_ttl: 7s").certificate_ttl == timedelta(seconds=7)


def test_early_builds_of_version_2_said_subtype() -> None:
    assert load(V2.replace("format: tls", "subtype: mongo")).outputs[-1].templates == ("mongo",)


def test_every_name_of_version_1_templates_can_be_changed() -> None:
    configs = (
        "[{identity: {file_name: a}}, {tls: {prefix: b}}, {mongo: {prefix: c}},"
        " {cockroach: {dir_name: d}}, ssh_client, {ssh_host_cert: },"
        " {tls_cas: {host_ca_path: e, user_ca_path: f, database_ca_path: g}}]"
    )
    config = load(f"destinations: [{{directory: /d, configs: {configs}}}]")
    assert config.outputs[0].names == FileNames("a", "b", "c", "d", "e", "f", "g")


def test_numbers_are_fine_where_strings_are_expected() -> None:
    assert load("onboarding: {token: 12345}").token == "12345"


def test_a_token_is_not_shown() -> None:
    assert "secret-token" not in repr(load("onboarding: {token: secret-token}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: v3", 'line 1: version: unrecognized config version "v3"'),
        ("a: [", "line 1: not valid YAML: "),
        ("a: 1\nb: ]", "line 2: not valid YAML: "),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML: "),
        ("\x00", "line 1: not valid YAML: "),
        ("[" * 5000, "line 1: not valid YAML: "),
        ("[]", "line 1: expected a mapping, found a list"),
        ("text", "line 1: expected a mapping, found a scalar"),
        ("debug: true\nrenew_interval: 1m", "line 2: renew_interval: unknown key; expected one "),
        ("debug: true\ndebug: false", "line 2: debug: the key appears twice"),
        ("outputs: []", "line 1: outputs: unknown key"),
        ("version: v2\ndestinations: []", "line 2: destinations: unknown key"),
        ("? [a]\n: b", "line 1: <a list>: unknown key"),
        ("certificate_ttl: 60", "line 1: certificate_ttl: not a duration such as 1h0m0s"),
        ("certificate_ttl: [1m]", "line 1: certificate_ttl: expected a string, found a list"),
        ("renewal_interval: 0s", "line 1: renewal_interval: should be longer than zero"),
        ("renewal_interval: -1m", "line 1: renewal_interval: should be longer than zero"),
        ("oneshot: maybe", "line 1: oneshot: expected true or false"),
        ("onboarding: []", "line 1: onboarding: expected a mapping, found a list"),
        ("onboarding:\n  tokn: x", "line 2: onboarding.tokn: unknown key"),
        (
            "onboarding:\n  ca_pins: x",
            "line 2: onboarding.ca_pins: expected a list, found a scalar",
        ),
        ("onboarding:\n  ca_pins:\n  - ''", "line 3: onboarding.ca_pins[0]: should not be empty"),
        ("onboarding: {token: {}}", "line 1: onboarding.token: expected a string, found a mapping"),
        ("destinations: {}", "line 1: destinations: expected a list, found a mapping"),
        ("destinations:\n- roles: [a]", "line 2: destinations[0].directory: should not be empty"),
        ("destinations:\n- directory: {}", "line 2: destinations[0].directory.path: should not be"),
        ("destinations:\n- directory: []", "line 2: destinations[0].directory: expected a mapping"),
        (
            "destinations:\n- directory: /d\n  database:\n    username: alice",
            "line 4: destinations[0].database.service: should not be empty",
        ),
        (
            "destinations:\n- directory: /d\n  configs: [tsl]",
            "line 3: destinations[0].configs[0]: unknown template 'tsl'",
        ),
        (
            "destinations:\n- directory: /d\n  configs: [{tls: {}, mongo: {}}]",
            "line 3: destinations[0].configs[0]: expected exactly one key",
        ),
        (
            "version: v2\nproxy_server: a:1\nauth_server: b:2",
            "line 2: proxy_server: cannot be combined with auth_server",
        ),
        ("version: v2\noutputs:\n- service: x", "line 3: outputs[0].type: should not be empty"),
        (
            "version: v2\noutputs:\n- type: database\n  service: x",
            "line 3: outputs[0].destination.type: should not be empty",
        ),
        (
            "version: v2\nservices:\n- type: database\n  destination: {type: directory, path: /d}",
            "line 3: services[0].service: should not be empty",
        ),
        (
            "version: v2\nservices:\n- type: database\n  destination: {type: memory}\n  service: x",
            "line 4: services[0].destination.type: the lab writes directories only, not memory",
        ),
        (
            "version: v2\nservices:\n- type: database\n  listen: x",
            "line 4: services[0].listen: unknown key",
        ),
        (
            f"version: v2\nservices:\n- type: database\n  format: jks\n{ROUTE}",
            "line 4: services[0].format: unknown format 'jks'",
        ),
    ],
)
def test_a_malformed_file_names_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(TbotConfigError) as caught:
        load(text)
    assert str(caught.value).startswith(f"tbot.yaml: {message}")
    assert "\n" not in str(caught.value)


KEYS = st.sampled_from(
    [
        "version",
        "onboarding",
        "token",
        "ca_pins",
        "destinations",
        "directory",
        "path",
        "database",
        "service",
        "configs",
        "tls",
        "outputs",
        "services",
        "type",
        "destination",
        "roles",
        "format",
        "renewal_interval",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["v1", "v2", "database", "directory", "/d", "1m", "identity", "mongo"])
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_any_document_is_a_configuration_or_an_error_with_a_line(document: object) -> None:
    with suppress(TbotConfigError):
        assert load(yaml.safe_dump(document)).version in {"v1", "v2"}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_error_with_a_line(text: str) -> None:
    with suppress(TbotConfigError):
        assert load(text).version in {"v1", "v2"}

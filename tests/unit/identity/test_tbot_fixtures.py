"""tbot's configuration files as people write them, for every version."""

import dataclasses
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.errors import Code, ConfigError
from dbproxy.identity import (
    DestinationEntry,
    FileNames,
    Format,
    Lifetime,
    TbotConfig,
    TunnelService,
    load_tbot_config,
    parse_tbot_config,
)
from dbproxy.lab import tbot_config as lab_tbot_config

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "tbot"
BROKEN = sorted((FIXTURES / "broken").glob("*.yaml"))

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def load(name: str) -> TbotConfig:
    return load_tbot_config(FIXTURES / f"{name}.yaml")


def targets(config: TbotConfig) -> list[tuple[str, str | None, str | None]]:
    """The kind, directory and service of each entry."""
    return [
        (entry.kind, str(entry.directory) if entry.directory else None, entry.service)
        for entry in config.entries
    ]


def test_the_guide_for_version_1() -> None:
    config = load("v1_guide")
    assert (config.auth_server, config.proxy_server) == ("teleport.example.com:443", None)
    assert (config.insecure, config.ca_path, config.lifetime) == (False, None, Lifetime())
    assert config.entries == (
        DestinationEntry(
            directory=Path("/opt/machine-id"),
            service="example-server",
            username="alice",
            database="example",
            kind="database",
            line=11,
            formats=(Format.MONGO,),
        ),
    )


def test_the_first_release_with_its_own_name_for_the_interval() -> None:
    config = load("v1_first_release")
    assert config.lifetime == Lifetime(
        certificate_ttl=timedelta(minutes=90), renewal_interval=45 * MINUTE
    )
    (entry,) = config.entries
    assert (entry.directory, entry.service) == (Path("/opt/machine-id"), "example-server")
    assert (entry.username, entry.database) == (None, None)
    assert entry.lifetime == config.lifetime


def test_version_1_with_everything() -> None:
    config = load("v1_full")
    assert config.auth_server == "teleport.example.com:443"
    assert config.ca_path == Path("/etc/tbot/ca.pem")
    assert config.insecure
    assert config.lifetime == Lifetime(certificate_ttl=HOUR, renewal_interval=20 * MINUTE)
    assert targets(config) == [
        ("identity", "/opt/ssh", None),
        ("database", "/opt/postgres", "example-server"),
        ("database", "/opt/mysql", "mysql-server"),
        ("database", None, "in-memory"),
        ("identity", None, None),
        ("identity", "/opt/kubernetes", None),
        ("identity", "/opt/host", None),
    ]
    postgres = config.entries[1]
    assert (postgres.username, postgres.database) == ("alice", "example")


def test_version_1_templates() -> None:
    default_names, own_names, empty_options = load("v1_templates").entries
    every = (Format.TLS, Format.MONGO, Format.COCKROACH)
    assert (default_names.formats, default_names.names) == (every, FileNames())
    assert own_names.formats == every
    assert own_names.names == FileNames(
        identity="id.pem",
        tls_prefix="client",
        mongo_prefix="mongodb",
        cockroach_directory="certs",
        host_ca="host.pem",
        user_ca="user.pem",
        database_ca="database.pem",
    )
    assert empty_options.formats == (Format.MONGO, Format.COCKROACH)
    assert empty_options.names == FileNames()


def test_version_1_of_continuous_integration() -> None:
    config = load("v1_action")
    assert targets(config) == [("identity", "/path/example", None)]


def test_the_guide_for_version_2() -> None:
    config = load("v2_guide")
    assert (config.auth_server, config.proxy_server) == (None, "teleport.example.com:443")
    assert config.entries == (
        DestinationEntry(
            directory=Path("/opt/machine-id"),
            service="example-server",
            username="alice",
            database="example",
            kind="database",
            line=10,
        ),
    )


def test_version_2_formats() -> None:
    formats = {str(entry.directory): entry.formats for entry in load("v2_formats").entries}
    assert formats == {
        "/opt/none": (),
        "/opt/tls": (Format.TLS,),
        "/opt/mongo": (Format.MONGO,),
        "/opt/cockroach": (Format.COCKROACH,),
        "/opt/subtype": (Format.MONGO,),
        "/opt/later": (),
    }


def test_version_2_services() -> None:
    config = load("v2_services")
    assert config.ca_path == Path("ca.pem")
    assert not config.insecure
    general = Lifetime(certificate_ttl=HOUR, renewal_interval=20 * MINUTE)
    assert config.lifetime == general
    assert targets(config) == [
        ("database", "/opt/machine-id", "example-server"),
        ("database-tunnel", None, "example-server"),
        ("database-tunnel", None, "other-server"),
        ("identity", "/opt/ssh", None),
        ("database", None, "in-kubernetes"),
        ("database", None, "in-memory"),
    ]
    assert [entry.lifetime for entry in config.entries] == [
        general,
        Lifetime(certificate_ttl=MINUTE, renewal_interval=timedelta(seconds=30)),
        general,
        general,
        Lifetime(certificate_ttl=10 * MINUTE, renewal_interval=3 * MINUTE),
        general,
    ]


def test_version_2_tunnels() -> None:
    named, unnamed = (entry for entry in load("v2_services").entries if entry.tunnel)
    path = FIXTURES / "v2_services.yaml"
    assert named.tunnel == TunnelService(
        name="my-tunnel",
        listen="tcp://127.0.0.1:25432",
        place=f"{path}:35:13: services[1].listen",
    )
    assert (named.username, named.database) == ("alice", "example")
    assert unnamed.tunnel == TunnelService(
        name=None,
        listen="unix:///run/app/.s.PGSQL.5432",
        place=f"{path}:44:13: services[2].listen",
    )
    assert (unnamed.username, unnamed.database) == ("bob", "other")


def test_kinds_that_are_not_for_databases_are_passed_over() -> None:
    config = load("v2_other_kinds")
    assert config.auth_server == "auth.example.com:3025"
    assert config.lifetime == Lifetime(certificate_ttl=45 * MINUTE)
    assert len(config.entries) == 14
    assert not any(entry.directory or entry.service or entry.tunnel for entry in config.entries)


def test_anchors_and_merged_keys() -> None:
    one, two = load("v2_anchors").entries
    assert (one.service, one.username, one.database) == ("example-server", "alice", "example")
    assert (two.service, two.username, two.database) == ("example-server", "on", "007")


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_mistake_is_named_with_its_place(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(ConfigError) as caught:
        load_tbot_config(path)
    assert caught.value.code is Code.CONFIG_MALFORMED
    assert str(caught.value) == f"{path}:{expected}"


def test_every_fixture_is_looked_at() -> None:
    source = Path(__file__).read_text()
    assert all(f'load("{path.stem}")' in source for path in FIXTURES.glob("*.yaml"))
    assert len(BROKEN) > 20


@pytest.mark.parametrize("name", ["v1_guide", "v1_templates", "v1_action", "v2_guide"])
def test_the_labs_own_parser_comes_to_the_same_result(name: str) -> None:
    """It shares no code with ours, so that a mistake in one of them shows."""
    text = (FIXTURES / f"{name}.yaml").read_text()
    text = text.replace("      - template_of_another_version:\n          anything: [1, 2]\n", "")
    text = text.replace("      - mongo: {prefix: second-is-ignored}\n", "")
    text = text.replace('      - mongo: {prefix: ""}\n', "      - mongo\n")
    ours = parse_tbot_config(text.encode(), Path(name))
    theirs = lab_tbot_config.load_tbot_config(text, name)
    assert len(theirs.outputs) == len(ours.entries)
    for output, entry in zip(theirs.outputs, ours.entries, strict=True):
        assert output.directory == entry.directory
        assert (output.service or None) == entry.service
        assert (output.db_user or None, output.db_name or None) == (entry.username, entry.database)
        formats = [template for template in output.templates if template in set(Format)]
        assert formats == list(entry.formats)
        assert dataclasses.asdict(output.names) == dataclasses.asdict(entry.names)


@given(
    path=st.sampled_from(sorted(FIXTURES.glob("*.yaml"))),
    patch=st.sampled_from(
        ["", "{", "[", "- ", ":", "null", "*a", '"', "\n", "\0", "1h", "{}", "[]", "-1s", "é", "\t"]
    ),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_a_file_cut_and_patched_anywhere_is_understood_or_refused_with_a_place(
    path: Path, patch: str, data: st.DataObject
) -> None:
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    outcome = attempt(text[:start] + patch + text[end:], path)
    if isinstance(outcome, ConfigError):
        assert outcome.code is Code.CONFIG_MALFORMED
        assert re.match(rf"{path}(:\d+:\d+)?: ", outcome.message)


def attempt(text: str, path: Path) -> TbotConfig | ConfigError:
    try:
        return parse_tbot_config(text.encode(), path)
    except ConfigError as error:
        return error

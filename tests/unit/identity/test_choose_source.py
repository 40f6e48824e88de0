"""From the settings to the source of the identity."""

from datetime import timedelta
from pathlib import Path

import pytest
from destinations import FIXTURES

from dbproxy.errors import UsageError
from dbproxy.identity import (
    DestinationSource,
    IdentityFileSource,
    NamedFilesSource,
    choose_source,
    parse_tbot_config,
)
from dbproxy.settings import Settings

CONFIG = parse_tbot_config(
    f"""\
destinations:
  - directory: {FIXTURES / "v13-custom-names"}
    database: {{service: example-server, username: alice, database: example}}
    configs:
      - identity: {{file_name: app-identity}}
      - tls_cas: {{host_ca_path: host.pem, user_ca_path: user.pem, database_ca_path: database.pem}}
""".encode(),
    Path("tbot.yaml"),
)


def test_an_identity_file_that_was_named_is_taken_whatever_the_configuration_says() -> None:
    path = FIXTURES / "v18" / "identity"
    chosen = choose_source(Settings(identity_file=path), CONFIG)
    assert isinstance(chosen.source, IdentityFileSource)
    assert chosen.location is None
    assert chosen.source.read().files.certificate == path


def test_files_that_were_named_are_taken_whatever_the_configuration_says() -> None:
    directory = FIXTURES / "tls"
    settings = Settings(
        cert=directory / "tls.crt", key=directory / "tls.key", ca=directory / "tls.cas"
    )
    chosen = choose_source(settings, CONFIG)
    assert isinstance(chosen.source, NamedFilesSource)
    assert chosen.source.read().files.host_ca == directory / "tls.cas"


def test_a_directory_that_was_named_is_taken() -> None:
    chosen = choose_source(Settings(destination_dir=FIXTURES / "v18"), None)
    assert isinstance(chosen.source, DestinationSource)
    assert chosen.source.directory == FIXTURES / "v18"


def test_the_names_that_the_configuration_gives_to_files_are_used() -> None:
    chosen = choose_source(Settings(), CONFIG)
    assert chosen.location is not None
    files = chosen.source.read().files
    assert files.host_ca == FIXTURES / "v13-custom-names" / "host.pem"


def test_without_any_hint_there_is_no_source() -> None:
    with pytest.raises(UsageError):
        choose_source(Settings(), None)


LIFETIMES = parse_tbot_config(
    b"""\
version: v2
renewal_interval: 20m
outputs:
  - {type: database, service: one, destination: {path: /opt/one}, credential_ttl: 10m,
     renewal_interval: 5m}
  - {type: database, service: two, destination: {path: /opt/one}, credential_ttl: 9m,
     renewal_interval: 3m}
""",
    Path("tbot.yaml"),
)


@pytest.mark.parametrize(
    ("directory", "service", "minutes"),
    [
        ("/opt/one", None, 5),
        ("/opt/one", "two", 3),
        ("/opt/./one/", "one", 5),
        ("/opt/one/cockroach", "one", 5),
        ("/opt/other", "one", 20),
    ],
)
def test_how_often_tbot_renews_is_known_for_files_that_were_named(
    directory: str, service: str | None, minutes: int
) -> None:
    where = Path(directory)
    for settings in (
        Settings(service=service, identity_file=where / "identity"),
        Settings(service=service, cert=where / "tlscert", key=where / "key", ca=Path("/etc/ca")),
        Settings(service=service, destination_dir=where),
    ):
        lifetime = choose_source(settings, LIFETIMES).lifetime
        assert lifetime.renewal_interval == timedelta(minutes=minutes)


def test_without_a_configuration_nobody_knows_how_often_tbot_renews() -> None:
    chosen = choose_source(Settings(identity_file=Path("/opt/one/identity")), None)
    assert chosen.lifetime.renewal_interval is None


def test_the_interval_is_that_of_the_output_that_was_chosen() -> None:
    chosen = choose_source(Settings(service="two"), LIFETIMES)
    assert chosen.lifetime.renewal_interval == timedelta(minutes=3)

"""Choosing the destination."""

from datetime import timedelta
from pathlib import Path

import pytest

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity import FileNames, Format, Location, TbotConfig, locate, parse_tbot_config


def config(*outputs: str) -> TbotConfig:
    lines = ["version: v2", "outputs:", *(f"  - {output}" for output in outputs)]
    return parse_tbot_config("\n".join(lines).encode(), Path("tbot.yaml"))


def output(service: str, directory: str, extra: str = "") -> str:
    return f"{{type: database, service: {service}, destination: {{path: {directory}}}{extra}}}"


def refuse(config: TbotConfig, service: str | None, username: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        locate(destination_dir=None, config=config, service=service, username=username)
    assert caught.value.code is Code.DESTINATION_NOT_FOUND
    return str(caught.value)


ONE = config(output("one", "/one"))
TWO = config(output("one", "/one"), output("two", "/two"))


def test_a_named_directory_wins() -> None:
    named = Path("/named")
    assert locate(destination_dir=named, config=ONE, service="other").directory == named
    assert locate(destination_dir=named, config=None, service=None).directory == named


def test_a_named_directory_that_the_configuration_does_not_know_has_default_names() -> None:
    found = locate(destination_dir=Path("/named"), config=ONE, service="one")
    assert found == Location(Path("/named"))
    assert (found.formats, found.names) == ((), FileNames())
    assert found.lifetime.renewal_interval is None


@pytest.mark.parametrize(
    "written", ["/opt/id", "/opt/id/", "//opt/id", "/opt//id", "/opt/./id", "/opt/x/../id"]
)
def test_the_entry_for_a_named_directory_is_honoured_however_it_is_written(written: str) -> None:
    text = f"""
        renewal_interval: 5m
        destinations:
          - directory: /opt/other
          - directory: {written}
            database: {{service: one}}
            configs: [mongo, {{tls: {{prefix: client}}}}]
        """
    known = parse_tbot_config(text.encode(), Path("tbot.yaml"))
    for named in (Path("/opt/id"), Path("/opt/x/../id"), Path("//opt/id")):
        found = locate(destination_dir=named, config=known, service=None)
        assert found.directory == named
        assert found.formats == (Format.MONGO, Format.TLS)
        assert found.names == FileNames(tls_prefix="client")
        assert found.lifetime.renewal_interval == timedelta(minutes=5)


def test_of_two_outputs_in_a_named_directory_the_one_for_the_service_is_honoured() -> None:
    shared = config(output("one", "/opt/id", ", format: tls"), output("two", "/opt/id"))
    for service, formats in (("one", (Format.TLS,)), ("two", ()), ("three", (Format.TLS,))):
        found = locate(destination_dir=Path("/opt/id"), config=shared, service=service)
        assert found.formats == formats


def test_what_the_configuration_says_comes_along_with_the_directory_that_it_names() -> None:
    formatted = config(output("one", "/one", ", format: cockroach"))
    found = locate(destination_dir=None, config=formatted, service="one")
    assert found.formats == (Format.COCKROACH,)


def test_the_output_for_the_service_is_found() -> None:
    assert locate(destination_dir=None, config=TWO, service="two").directory == Path("/two")


def test_the_only_database_output_needs_no_service() -> None:
    mixed = config("{type: identity, destination: {path: /ssh}}", output("one", "/one"))
    assert locate(destination_dir=None, config=mixed, service=None).directory == Path("/one")


def test_one_directory_written_in_two_ways_is_one() -> None:
    twice = config(output("one", "/opt/id"), output("one", "/opt/other/../id/"))
    assert locate(destination_dir=None, config=twice, service="one").directory == Path("/opt/id")


def test_outputs_of_one_service_are_told_apart_by_user_and_database() -> None:
    users = config(
        output("one", "/a", ", username: alice, database: x"),
        output("one", "/b", ", username: bob, database: x"),
        output("one", "/c", ", username: bob, database: y"),
    )
    found = locate(destination_dir=None, config=users, service="one", username="bob", database="y")
    assert found.directory == Path("/c")
    assert refuse(users, "one", "bob") == (
        "tbot.yaml: more than one database output for the service 'one';"
        " it has line 4: database for the service 'one', user 'bob', database 'x', directory /b;"
        " line 5: database for the service 'one', user 'bob', database 'y', directory /c"
    )


def test_another_service_is_refused_with_the_candidates() -> None:
    assert refuse(ONE, "other") == (
        "tbot.yaml: no database output for the service 'other'; it has"
        " line 3: database for the service 'one', directory /one"
    )


def test_another_user_than_the_outputs_does_not_exclude_the_only_output() -> None:
    only = config(output("one", "/a", ", username: alice"))
    found = locate(destination_dir=None, config=only, service="one", username="bob")
    assert found.directory == Path("/a")


def test_several_services_need_a_choice() -> None:
    message = refuse(TWO, None)
    assert message.startswith("tbot.yaml: more than one database output; it has line 3:")
    assert "'one'" in message
    assert "'two'" in message


def test_a_configuration_without_databases_says_so() -> None:
    identity = config("{type: identity, destination: {path: /ssh}}")
    assert refuse(identity, None) == "tbot.yaml: no database output; it has none at all"


def test_an_output_that_is_no_directory_says_so() -> None:
    memory = config("{type: database, service: one, destination: {type: memory}}")
    assert refuse(memory, "one") == (
        "tbot.yaml: no database output for the service 'one' goes to a directory; it has"
        " line 3: database for the service 'one', no directory"
    )


def test_a_tunnel_is_no_output_though_it_is_listed() -> None:
    tunnel = config("{type: database-tunnel, service: one, listen: 'tcp://127.0.0.1:1'}")
    assert refuse(tunnel, "one") == (
        "tbot.yaml: no database output for the service 'one'; it has"
        " line 3: database-tunnel for the service 'one', no directory"
    )


def test_an_output_in_memory_beside_one_in_a_directory_is_passed_over() -> None:
    both = config(
        "{type: database, service: one, destination: {type: memory}}", output("one", "/one")
    )
    assert locate(destination_dir=None, config=both, service="one").directory == Path("/one")


def test_without_a_directory_and_a_configuration_both_options_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        locate(destination_dir=None, config=None, service="one")
    assert "--destination-dir" in caught.value.next_step
    assert "--config" in caught.value.next_step

"""Choosing between the layouts that a destination may have: no files are needed for that."""

import pytest

from dbproxy.identity.layout import FileNames, Format, choose_layout, layouts

NAMES = FileNames(
    identity="app-identity", tls_prefix="client", mongo_prefix="db", cockroach_directory="roach"
)

NOTHING_BETTER = "there is no tlscert and no identity and no tls.crt and no mongo.crt"


def titles(*formats: Format) -> list[str]:
    return [layout.title for layout in layouts(formats)]


def test_the_default_files_are_preferred_then_the_identity_file_then_formats() -> None:
    expected = ["default files", "identity file", "tls format", "mongo format", "cockroach format"]
    assert titles() == expected


def test_formats_that_the_output_is_configured_for_come_before_others() -> None:
    assert titles(Format.COCKROACH, Format.MONGO, Format.MONGO)[2:] == [
        "cockroach format",
        "mongo format",
        "tls format",
    ]


@pytest.mark.parametrize(
    ("present", "title", "reason"),
    [
        (
            {"tlscert", "key", "identity", "tls.crt", "tls.key"},
            "default files",
            "tlscert and key are there, which tbot writes for every database output",
        ),
        (
            {"tlscert", "identity", "tls.crt", "tls.key"},
            "identity file",
            "there is no key, but identity",
        ),
        (
            {"tls.crt", "tls.key", "mongo.crt"},
            "tls format",
            "there is no tlscert and no identity, but tls.crt and tls.key",
        ),
        (
            {"mongo.crt"},
            "mongo format",
            "there is no tlscert and no identity and no tls.crt, but mongo.crt",
        ),
        (
            {"cockroach/node.crt", "cockroach/node.key", "tls.key"},
            "cockroach format",
            f"{NOTHING_BETTER}, but cockroach/node.crt and cockroach/node.key",
        ),
        ({"tls.key"}, "tls format", "there is tls.key, but no tls.crt"),
        ({"key", "tls.crt"}, "default files", "there is key, but no tlscert"),
    ],
)
def test_the_best_complete_layout_is_chosen(present: set[str], title: str, reason: str) -> None:
    choice = choose_layout(layouts(), present.__contains__)
    assert (choice.layout.title, choice.reason, choice.found) == (title, reason, True)


def test_where_nothing_is_the_choice_says_so() -> None:
    choice = choose_layout(layouts(), lambda _: False)
    assert not choice.found
    assert choice.layout.title == "default files"


def test_names_that_tbot_was_configured_with_are_used() -> None:
    names = [name for layout in layouts(names=NAMES) for name in layout.leading]
    assert names == [
        "tlscert",
        "key",
        "app-identity",
        "client.crt",
        "client.key",
        "db.crt",
        "roach/node.crt",
        "roach/node.key",
    ]


def test_the_list_of_all_authorities_serves_where_the_host_ca_has_no_file() -> None:
    default = layouts()[0]
    assert default.host_ca({"tlscacerts", "teleport-host-ca.crt"}.__contains__) == (
        "teleport-host-ca.crt"
    )
    assert default.host_ca({"tlscacerts"}.__contains__) == "tlscacerts"
    assert default.host_ca(lambda _: False) == "teleport-host-ca.crt"

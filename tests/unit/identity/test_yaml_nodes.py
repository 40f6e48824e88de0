"""YAML values that know where they stand."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.errors import Code, ConfigError
from dbproxy.identity.yaml_document import parse_yaml
from dbproxy.identity.yaml_nodes import YamlValue

SOURCE = Path("/etc/tbot.yaml")


def parse(text: str) -> YamlValue:
    value = parse_yaml(text.encode(), SOURCE)
    assert value is not None
    return value


def refuse(data: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(data, SOURCE)
    assert caught.value.code is Code.CONFIG_MALFORMED
    return str(caught.value)


def need(value: YamlValue | None) -> YamlValue:
    assert value is not None
    return value


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "null\n", "~"])
def test_an_empty_document_is_nothing(text: str) -> None:
    assert parse_yaml(text.encode(), SOURCE) is None


def test_values_know_their_line_and_key() -> None:
    value = need(parse("a:\n  - b: 1\n  - c:\n      d: 2\n").get("a")).items()[1]
    leaf = need(need(value.get("c")).get("d"))
    assert (leaf.line, leaf.key) == (4, "a[1].c.d")
    assert str(leaf.error("is wrong")) == "/etc/tbot.yaml:4:10: a[1].c.d: is wrong"


def test_an_unusual_key_is_quoted_in_the_path() -> None:
    value = need(need(parse('"a b": {"c\\nd": 1}').get("a b")).get("c\nd"))
    assert value.key == r"'a b'.'c\nd'"


@pytest.mark.parametrize("text", ["a:", "a: null", "a: ~", "b: 1"])
def test_an_absent_key_and_null_are_nothing(text: str) -> None:
    assert parse(text).get("a") is None


@pytest.mark.parametrize(
    "scalar", ["on", "yes", "1", "0x10", "1.5", "2026-01-01", "'on'", "=", "<<"]
)
def test_any_single_value_can_be_read_as_text(scalar: str) -> None:
    assert need(parse(f"a: {scalar}").get("a")).text() == scalar.strip("'")


@pytest.mark.parametrize(
    ("scalar", "value"),
    [(text, True) for text in ("true", "True", "yes", "on")]
    + [(text, False) for text in ("false", "FALSE", "no", "off")],
)
def test_truth_values_are_read(scalar: str, value: bool) -> None:
    assert need(parse(f"a: {scalar}").get("a")).boolean() is value


def test_merged_mappings_are_looked_into() -> None:
    root = parse(
        "x: &x {one: 1, two: 2}\ny: &y {two: zwei, three: drei}\n"
        "z:\n  <<: [*x, *y]\n  one: eins\nw:\n  <<: *x\n"
    )
    z = need(root.get("z"))
    assert [need(z.get(key)).text() for key in ("one", "two", "three")] == ["eins", "2", "drei"]
    assert need(need(root.get("w")).get("two")).text() == "2"
    assert z.get("four") is None


def test_a_mapping_that_merges_itself_ends() -> None:
    assert parse("&a {<<: *a, b: 1}").get("c") is None


def test_what_cannot_be_merged_is_passed_over() -> None:
    assert parse("<<: [1, [2], null]\na: 1").get("b") is None


def test_a_list_that_holds_itself_ends() -> None:
    assert len(need(parse("a: &x [*x, 1]").get("a")).items()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "1:1: must be a mapping, not a list"),
        ("a", "1:1: must be a mapping, not a single value"),
    ],
)
def test_what_is_no_mapping_has_no_keys(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text).get("a")
    assert str(caught.value) == f"{SOURCE}:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b: 1", "1:1: a: is missing"),
        ("\na:", "2:1: a: is missing"),
        ("a: ''", "1:4: a: must not be empty"),
    ],
)
def test_a_required_key_must_be_there(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text).require("a")
    assert str(caught.value) == f"{SOURCE}:{message}"


@pytest.mark.parametrize(
    ("scalar", "reader", "message"),
    [
        ("{}", "text", "must be text, not a mapping"),
        ("[]", "text", "must be text, not a list"),
        (r'"\0"', "text", "must not hold control characters"),
        (r'"\ud800"', "text", "must not hold control characters"),
        ("'true'", "boolean", "must be true or false"),
        ("1", "boolean", "must be true or false"),
        ("[]", "boolean", "must be true or false"),
        ("x", "items", "must be a list, not a single value"),
        ("{}", "items", "must be a list, not a mapping"),
        ("20", "duration", "must be a duration such as 20m or 1h0m0s, not '20'"),
        ("{}", "duration", "must be text, not a mapping"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(scalar: str, reader: str, message: str) -> None:
    value = need(parse(f"a: {scalar}").get("a"))
    with pytest.raises(ConfigError) as caught:
        getattr(value, reader)()
    assert str(caught.value) == f"{SOURCE}:1:4: a: {message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "3:1: a: the key appears twice"),
        (b"x:\n  - a: 1\n    a: 2\n", "3:5: x[0].a: the key appears twice"),
        (b"'a': 1\n\"a\": 2\n", "2:1: a: the key appears twice"),
        (b"? [a]\n: 1\n", "1:3: a key must be text"),
        (b"a: [1\nb: 2\n", "2:2: while parsing a flow sequence"),
        (b"a: b: c", "1:5: mapping values are not allowed here"),
        (b"a: *x", "1:4: found undefined alias 'x'"),
        (b"a: 1\n---\nb: 2\n", "2:1: expected a single document in the stream"),
        (b"a: 1\n\tb: 2\n", "2:1: while scanning for the next token"),
        (b"a: \xff\n", "1:4: the file is not UTF-8"),
        (b"a: 1\nb: \x00\n", "2:4: the character U+0000 is not allowed"),
    ],
)
def test_what_is_not_yaml_is_named_with_its_place(data: bytes, message: str) -> None:
    assert refuse(data).startswith(f"{SOURCE}:{message}")


@pytest.mark.parametrize("data", [b'a: "\\UFFFFFFFF"', b"%YAML " + b"1" * 5000 + b".1\n--- a"])
def test_numbers_out_of_range_are_refused(data: bytes) -> None:
    message = refuse(data)
    assert message.startswith(f"{SOURCE}:1:")
    assert "out of range" in message


@pytest.mark.parametrize("data", [b"[" * 5000, b"{a: " * 5000, b"- " * 5000])
def test_deep_nesting_is_refused(data: bytes) -> None:
    assert "the nesting is too deep" in refuse(data)


def test_repeated_anchors_cost_nothing() -> None:
    """Each line doubles what the document would be if anchors were expanded."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert need(parse("\n".join(lines)).get("a39")).items()[0].key == "a39[0]"


def test_tags_do_not_construct_anything() -> None:
    value = parse("a: !!python/object/apply:os.system ['exit 1']")
    assert need(value.get("a")).items()[0].text() == "exit 1"


PIECES = [
    "a",
    "b",
    ":",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "\\",
    "#",
    "%",
    "?",
    "~",
    "on",
    "@",
    "`",
    "!t",
    "*x",
    "&x",
    "|",
    ">",
    "-",
    "<<:",
    "!!binary",
    "---",
    "...",
]
BLANKS = ["\n", " ", "  ", "\t", "\0", "\ufeff", "\u2028", "\r"]
YAML_PIECES = st.sampled_from([*PIECES, *BLANKS, *(f"{piece} " for piece in PIECES)])


def attempt(data: bytes) -> YamlValue | ConfigError | None:
    try:
        return parse_yaml(data, SOURCE)
    except ConfigError as error:
        return error


@given(st.lists(YAML_PIECES, max_size=25).map("".join))
@settings(deadline=None, max_examples=300)
def test_any_text_is_yaml_or_a_config_error(text: str) -> None:
    outcome = attempt(text.encode())
    if isinstance(outcome, ConfigError):
        assert outcome.code is Code.CONFIG_MALFORMED
        assert str(outcome).startswith(f"{SOURCE}:")


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_yaml_or_a_config_error(data: bytes) -> None:
    outcome = attempt(data)
    if isinstance(outcome, ConfigError):
        assert outcome.code is Code.CONFIG_MALFORMED
        assert str(outcome).startswith(f"{SOURCE}:")

"""The web address of a Teleport Proxy, as people write it and as it is published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import UsageError
from dbproxy.upstream import ConfiguredAddress, ProxyAddress
from dbproxy.upstream.address import AddressError, parse_published


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("teleport.example.com", "teleport.example.com", None, "teleport.example.com"),
        ("teleport.example.com:3080", "teleport.example.com", 3080, "teleport.example.com:3080"),
        ("teleport.example.com:", "teleport.example.com", None, "teleport.example.com"),
        ("teleport.example.com.:443", "teleport.example.com", 443, "teleport.example.com:443"),
        ("Teleport.Example.COM:1", "teleport.example.com", 1, "teleport.example.com:1"),
        ("  teleport.example.com\n", "teleport.example.com", None, "teleport.example.com"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
        ("localhost:00443", "localhost", 443, "localhost:443"),
        ("my_proxy", "my_proxy", None, "my_proxy"),
        ("teleport7", "teleport7", None, "teleport7"),
        ("bücher.example", "bücher.example", None, "bücher.example"),
        ("127.0.0.1", "127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1:3080", "127.0.0.1", 3080, "127.0.0.1:3080"),
        ("::1", "::1", None, "[::1]"),
        ("2001:DB8::7", "2001:db8::7", None, "[2001:db8::7]"),
        ("fe80::A%Eth0", "fe80::a%Eth0", None, "[fe80::a%Eth0]"),
        ("[::1]", "::1", None, "[::1]"),
        ("[::1]:", "::1", None, "[::1]"),
        ("[::1]:3080", "::1", 3080, "[::1]:3080"),
        ("https://teleport.example.com", "teleport.example.com", None, "teleport.example.com"),
        ("https://teleport.example.com/", "teleport.example.com", None, "teleport.example.com"),
        ("HTTPS://h:3080/", "h", 3080, "h:3080"),
        ("https://[::1]:3080", "::1", 3080, "[::1]:3080"),
        ("https://::1", "::1", None, "[::1]"),
        ("tcp://h:1", "h", 1, "h:1"),
    ],
)
def test_addresses_are_read_in_every_usual_form(
    text: str, host: str, port: int | None, shown: str
) -> None:
    address = ConfiguredAddress.parse(text)
    assert address == ConfiguredAddress(host, port)
    assert str(address) == shown


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the host is missing"),
        (" ", "the host is missing"),
        (":443", "the host is missing"),
        ("/", "the host is missing"),
        ("https://", "the host is missing"),
        ("host:0", "the port 0 is not between 1 and 65535"),
        ("host:000", "the port 000 is not between 1 and 65535"),
        ("host:65536", "the port 65536 is not between 1 and 65535"),
        (f"host:{'9' * 5000}", "is not between 1 and 65535"),
        ("host:-1", "the port '-1' is not a number"),
        ("host:port", "the port 'port' is not a number"),
        ("host:44 3", "the port '44 3' is not a number"),
        ("host:٤٤٣", "the port '٤٤٣' is not a number"),
        ("[::1]:https", "the port 'https' is not a number"),
        ("two words", "'two words' is neither a host name nor an IP address"),
        ("host/path", "'/path' does not belong there"),
        ("https://host/web/login", "'/web/login' does not belong there"),
        ("https://host?x=1", "'?x=1' does not belong there"),
        ("https://host#x", "'#x' does not belong there"),
        ("http://host", "it begins with http://, and a Teleport Proxy is at https://"),
        ("ssh://host", "it begins with ssh://, and a Teleport Proxy is at https://"),
        ("[::1", "several colons and is not an IPv6 address"),
        ("::1]", "several colons and is not an IPv6 address"),
        ("[::1]x", "several colons and is not an IPv6 address"),
        ("[not-an-address]", "'not-an-address' is not an IPv6 address"),
        ("[127.0.0.1]", "'127.0.0.1' is not an IPv6 address"),
        ("1:2:3", "several colons and is not an IPv6 address"),
        ("host:1:2", "several colons and is not an IPv6 address"),
        ("host,other", "'host,other' is neither a host name nor an IP address"),
        ("foo$bar", "neither a host name nor an IP address"),
        ("back\\slash", "neither a host name nor an IP address"),
        ("%41", "neither a host name nor an IP address"),
        ("*.example.com", "neither a host name nor an IP address"),
        ("3080", "'3080' is neither a host name nor an IP address"),
        ("10.0.0.256:443", "'10.0.0.256' is neither a host name nor an IP address"),
        ("0x7f.0x1", "'0x7f.0x1' is neither a host name nor an IP address"),
    ],
)
def test_anything_else_is_shown_with_what_is_wrong_in_one_sentence(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        ConfiguredAddress.parse(text)
    assert caught.value.message.startswith(f"{text!r} is not the address of a Teleport Proxy: ")
    assert caught.value.message.endswith(what)
    assert "HOST:PORT" in caught.value.next_step


@pytest.mark.parametrize(
    "text", ["https://alice:secret@host:443", "alice:secret@host:443", "secret@host:443"]
)
def test_a_password_is_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ConfiguredAddress.parse(text)
    assert "@host:443" in caught.value.message
    assert "secret" not in caught.value.message
    assert "a user name does not belong there" in caught.value.message


@pytest.mark.parametrize("text", ["a..b", ".", ".example.com", "a" * 64, f"{'a' * 64}.com:443"])
def test_a_name_that_no_resolver_takes_is_a_usage_error_and_not_a_bug_later(text: str) -> None:
    with pytest.raises(UsageError):
        ConfiguredAddress.parse(text)


def test_a_port_that_is_missing_may_be_443_or_3080_in_this_order() -> None:
    address = ConfiguredAddress.parse("teleport.example.com")
    assert [str(candidate) for candidate in address.candidates] == [
        "teleport.example.com:443",
        "teleport.example.com:3080",
    ]
    assert address.preferred == ProxyAddress("teleport.example.com", 443)


def test_a_port_that_is_given_is_the_only_one() -> None:
    address = ConfiguredAddress.parse("[::1]:8443")
    assert address.candidates == (ProxyAddress("::1", 8443),)
    assert str(address.preferred) == "[::1]:8443"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("teleport.example.com", "teleport.example.com:1"),
        ("http://teleport.example.com:80", "teleport.example.com:80"),
        ("tcp://[::1]", "[::1]:1"),
    ],
)
def test_published_addresses_may_have_any_of_teleports_schemes(text: str, shown: str) -> None:
    assert str(parse_published(text, default_port=1)) == shown


@given(st.text())
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = ConfiguredAddress.parse(text)
    except UsageError:
        return
    assert ConfiguredAddress.parse(str(address)) == address
    assert all(0 < candidate.port < 65536 for candidate in address.candidates)


AUTHORITIES = st.from_regex(
    r"(https://|tcp://|ssh://)?(\w+@)?[\[\]:.%a-f0-9x]{0,12}(:\d{0,7})?[/?#]?", fullmatch=True
)


@given(AUTHORITIES)
def test_any_text_that_is_nearly_an_address_is_one_or_an_error_of_its_own(text: str) -> None:
    try:
        address = parse_published(text, default_port=443)
    except AddressError:
        return
    assert parse_published(str(address), default_port=1) == address
    assert 0 < address.port < 65536

"""The web address of a Teleport Proxy, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import UsageError
from dbproxy.upstream import ProxyAddress


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("teleport.example.com", "teleport.example.com", 443, "teleport.example.com:443"),
        ("teleport.example.com:3080", "teleport.example.com", 3080, "teleport.example.com:3080"),
        ("teleport.example.com:", "teleport.example.com", 443, "teleport.example.com:443"),
        ("Teleport.Example.COM:1", "teleport.example.com", 1, "teleport.example.com:1"),
        ("  teleport.example.com\n", "teleport.example.com", 443, "teleport.example.com:443"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
        ("my_proxy", "my_proxy", 443, "my_proxy:443"),
        ("bücher.example", "bücher.example", 443, "bücher.example:443"),
        ("127.0.0.1", "127.0.0.1", 443, "127.0.0.1:443"),
        ("127.0.0.1:3080", "127.0.0.1", 3080, "127.0.0.1:3080"),
        ("::1", "::1", 443, "[::1]:443"),
        ("2001:db8::7", "2001:db8::7", 443, "[2001:db8::7]:443"),
        ("[::1]", "::1", 443, "[::1]:443"),
        ("[::1]:3080", "::1", 3080, "[::1]:3080"),
        ("https://teleport.example.com", "teleport.example.com", 443, "teleport.example.com:443"),
        ("https://teleport.example.com/", "teleport.example.com", 443, "teleport.example.com:443"),
        ("https://h:3080/", "h", 3080, "h:3080"),
        ("https://[::1]:3080", "::1", 3080, "[::1]:3080"),
        ("tcp://h:1", "h", 1, "h:1"),
    ],
)
def test_addresses_are_read_in_every_usual_form(
    text: str, host: str, port: int, shown: str
) -> None:
    address = ProxyAddress.parse(text)
    assert address == ProxyAddress(host, port)
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":443",
        "/",
        "https://",
        "host:0",
        "host:-1",
        "host:65536",
        "host:port",
        "host:44 3",
        "two words",
        "host/path",
        "https://host/web/login",
        "https://host?x=1",
        "https://host#x",
        "http://host",
        "ssh://host",
        "alice@host",
        "https://alice:secret@host",
        "[::1",
        "::1]",
        "[::1]x",
        "[not-an-address]",
        "1:2:3",
        "host:1:2",
        "host,other",
        "foo$bar",
        "back\\slash",
        "%41",
        "*.example.com",
    ],
)
def test_anything_else_is_a_usage_error_that_shows_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ProxyAddress.parse(text)
    assert repr(text) in caught.value.message
    assert "HOST:PORT" in caught.value.next_step


@pytest.mark.parametrize("text", ["a..b", ".", ".example.com", "a" * 64, f"{'a' * 64}.com:443"])
def test_a_name_that_no_resolver_takes_is_a_usage_error_and_not_a_bug_later(text: str) -> None:
    with pytest.raises(UsageError):
        ProxyAddress.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = ProxyAddress.parse(text)
    except UsageError:
        return
    assert ProxyAddress.parse(str(address)) == address
    assert 0 < address.port < 65536

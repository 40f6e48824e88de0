"""Which outbound proxy the environment names: Go's rules, credentials, and bad values."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import UsageError
from dbproxy.upstream.outbound_proxy import OutboundProxy, outbound_proxy_for

TARGET = ("teleport.example.com", 443)
SECRET = "s3cr3t"


def chosen(*target: str | int, **environ: str) -> str | None:
    """The URL of the chosen proxy, without credentials."""
    host, port = target or TARGET
    proxy = outbound_proxy_for(environ, str(host), int(port))
    return None if proxy is None else str(proxy)


def parsed(url: str) -> OutboundProxy:
    proxy = outbound_proxy_for({"HTTPS_PROXY": url}, *TARGET)
    assert proxy is not None
    return proxy


def excepted(no_proxy: str, host: str, port: int = 443) -> bool:
    return chosen(host, port, HTTPS_PROXY="http://proxy:3128", NO_PROXY=no_proxy) is None


NAMES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
ALL = {name: f"http://{number}:1" for number, name in enumerate(NAMES)}


class TestPrecedence:
    """Which variable counts."""

    @pytest.mark.parametrize("first", range(6))
    def test_https_before_http_before_all_and_capitals_before_small_letters(
        self, first: int
    ) -> None:
        names = NAMES[first:]
        proxy = outbound_proxy_for({name: ALL[name] for name in names}, *TARGET)
        assert proxy is not None
        assert (proxy.host, proxy.variable) == (str(first), names[0])

    @pytest.mark.parametrize("empty", ["", "  "])
    def test_an_empty_variable_is_one_that_is_not_set(self, empty: str) -> None:
        assert chosen(HTTPS_PROXY=empty, https_proxy="http://a:1") == "http://a:1"
        assert chosen(HTTPS_PROXY=empty) is None

    def test_without_any_variable_one_connects_directly(self) -> None:
        assert chosen() is None

    def test_the_no_proxy_in_capitals_hides_the_other(self) -> None:
        environ = {"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x", "no_proxy": "example.com"}
        assert outbound_proxy_for(environ, *TARGET) is not None
        environ["NO_PROXY"] = ""
        assert outbound_proxy_for(environ, *TARGET) is None

    def test_a_bad_value_that_does_not_count_does_not_matter(self) -> None:
        assert chosen(HTTPS_PROXY="http://a:1", ALL_PROXY="nonsense://") == "http://a:1"
        assert chosen(HTTPS_PROXY="nonsense://", NO_PROXY="*") is None


class TestNoProxy:
    """What is excepted."""

    @pytest.mark.parametrize(
        "host",
        ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"],
    )
    def test_loopback_is_never_proxied(self, host: str) -> None:
        assert excepted("", host)

    @pytest.mark.parametrize("host", ["localhost.example.com", "128.0.0.1", "::2", "0.0.0.0"])
    def test_what_only_looks_like_loopback_is(self, host: str) -> None:
        assert not excepted("", host)

    @pytest.mark.parametrize(
        ("no_proxy", "host"),
        [
            ("*", "teleport.example.com"),
            ("*", "10.0.0.1"),
            ("a, * ,b", "teleport.example.com"),
            ("example.com", "example.com"),
            ("example.com", "teleport.example.com"),
            ("example.com", "a.b.example.com"),
            ("EXAMPLE.com", "Teleport.Example.COM"),
            (".example.com", "teleport.example.com"),
            ("*.example.com", "teleport.example.com"),
            ("x,,  example.com ", "example.com"),
            ("example.com:443", "teleport.example.com"),
            (".example.com:443", "teleport.example.com"),
            ("teleport.example.com", "teleport.example.com"),
            ("bücher.example", "bücher.example"),
            ("xn--bcher-kva.example", "bücher.example"),
            ("bücher.example", "a.xn--bcher-kva.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("10.0.0.0/8", "10.9.9.9"),
            ("10.1.2.3/8", "10.9.9.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8:0::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:5::1"),
            ("10.0.0.1", "::ffff:10.0.0.1"),
        ],
    )
    def test_a_word_that_matches(self, no_proxy: str, host: str) -> None:
        assert excepted(no_proxy, host)

    @pytest.mark.parametrize(
        ("no_proxy", "host"),
        [
            (".example.com", "example.com"),
            ("*.example.com", "example.com"),
            ("example.com", "notexample.com"),
            ("example.com", "example.com.evil.net"),
            ("example.com:80", "example.com"),
            ("example.com:https", "example.com"),
            ("teleport.*", "teleport.example.com"),
            ("10.0.0.1", "10.0.0.11"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "10.example.com"),
            ("10.0.0.0/99", "10.0.0.1"),
            ("2001:db8::/32", "2001:db9::1"),
            ("10.0.0.0/8", "2001:db8::1"),
            (":443", "example.com"),
            ("[2001:db8::1", "2001:db8::1"),
            (" , ,", "example.com"),
        ],
    )
    def test_a_word_that_does_not_match(self, no_proxy: str, host: str) -> None:
        assert not excepted(no_proxy, host)

    @given(st.text(max_size=40), st.text(max_size=20))
    def test_any_text_is_taken(self, no_proxy: str, host: str) -> None:
        excepted(no_proxy, host)


class TestURLs:
    """What the value of a variable may look like."""

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("http://proxy.example.com", "http://proxy.example.com:80"),
            ("https://proxy.example.com", "https://proxy.example.com:443"),
            ("socks5://proxy.example.com", "socks5://proxy.example.com:1080"),
            ("socks5h://proxy.example.com:9050", "socks5h://proxy.example.com:9050"),
            ("HTTP://Proxy.Example.Com:3128/", "http://proxy.example.com:3128"),
            ("proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("proxy", "http://proxy:80"),
            ("10.0.0.1:3128", "http://10.0.0.1:3128"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://127.0.0.1:3128/ignored/path", "http://127.0.0.1:3128"),
            ("http://bücher.example:1", "http://xn--bcher-kva.example:1"),
            (" http://proxy:3128 ", "http://proxy:3128"),
            ("user:password@proxy:3128", "http://proxy:3128"),
        ],
    )
    def test_scheme_host_and_port(self, url: str, expected: str) -> None:
        assert str(parsed(url)) == expected

    @pytest.mark.parametrize(
        ("userinfo", "user", "password"),
        [
            ("", None, ""),
            ("user@", "user", ""),
            ("user:@", "user", ""),
            ("user:password@", "user", "password"),
            ("user:p%40ss%3Aw%2Frd%25@", "user", "p@ss:w/rd%"),
            ("DOMAIN%5Cuser:a:b@", "DOMAIN\\user", "a:b"),
            ("%C3%BC:%E2%82%AC@", "ü", "€"),
            (":password@", "", "password"),
        ],
    )
    @pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
    def test_credentials_are_percent_decoded(
        self, scheme: str, userinfo: str, user: str | None, password: str
    ) -> None:
        proxy = parsed(f"{scheme}://{userinfo}proxy:1")
        assert (proxy.user, proxy.password) == (user, password)

    def test_a_password_is_never_shown(self) -> None:
        proxy = parsed(f"http://user:{SECRET}@proxy:3128")
        assert SECRET not in repr(proxy) + str(proxy)

    @pytest.mark.parametrize(
        "url",
        [
            "http://",
            "http://:3128",
            f"http://user:{SECRET}@",
            f"http://user:{SECRET}@:3128",
            f"http://user:{SECRET}@proxy:port",
            f"http://user:{SECRET}@proxy:99999",
            f"http://user:{SECRET}@proxy:0",
            f"http://user:#{SECRET}@proxy:1",
            f"http://user:{SECRET}@proxy:1?x",
            f"http://user:{SECRET}@pro xy:1",
            f"http://user:{SECRET}@[::1:3128",
            f"socks4://user:{SECRET}@proxy:1080",
            f"quic://user:{SECRET}@proxy",
            f"socks5://user:{SECRET}{'x' * 255}@proxy",
        ],
    )
    def test_a_bad_value_is_an_error_that_names_the_variable_and_not_the_password(
        self, url: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            outbound_proxy_for({"https_proxy": url}, *TARGET)
        assert "https_proxy" in caught.value.message
        assert "https_proxy" in caught.value.next_step
        assert SECRET not in caught.value.message + caught.value.next_step
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @given(st.text(max_size=60))
    def test_any_value_is_a_proxy_or_a_usage_error(self, url: str) -> None:
        with suppress(UsageError):
            assert outbound_proxy_for({"HTTPS_PROXY": url}, *TARGET) is None or parsed(url).host

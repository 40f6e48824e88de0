"""The address of the Teleport Proxy, and what is said when there is none."""

from pathlib import Path

import pytest

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity import TbotConfig, parse_tbot_config
from dbproxy.settings import Settings
from dbproxy.upstream import ConfiguredAddress
from dbproxy.wiring import proxy_address


class TestProxyAddress:
    """The address of the Teleport Proxy, and what is said when there is none."""

    def config(self, text: str) -> TbotConfig:
        return parse_tbot_config(text.encode(), Path("tbot.yaml"))

    def test_what_the_file_names_wrongly_is_told_with_its_place(self) -> None:
        with pytest.raises(ConfigError) as caught:
            proxy_address(Settings(), self.config("version: v2\nproxy_server: 'a b'\n"))
        assert caught.value.code is Code.CONFIG_MALFORMED
        assert caught.value.message.startswith("tbot.yaml:2:15: proxy_server: 'a b' is not the add")
        assert "--proxy" in caught.value.next_step

    def test_a_misspelt_key_is_named(self) -> None:
        with pytest.raises(UsageError) as caught:
            proxy_address(Settings(), self.config("version: v2\nproxy_servr: a.example.com\n"))
        assert caught.value.message == (
            "the address of the Teleport Proxy is not known; in tbot.yaml, line 2: `proxy_servr` is"
            " not a key that dbproxy knows; did you mean `proxy_server`?"
        )

    def test_other_words_have_nothing_to_do_with_it(self) -> None:
        with pytest.raises(UsageError) as caught:
            proxy_address(Settings(), self.config("version: v2\nservces: []\n"))
        assert caught.value.message == "the address of the Teleport Proxy is not known"

    @pytest.mark.parametrize(
        ("settings", "text", "address", "named_by", "may_be_auth_service"),
        [
            (
                Settings(proxy="a.example.com:1"),
                "proxy_server: b:2",
                "a.example.com:1",
                "--proxy",
                0,
            ),
            (Settings(), "proxy_server: b", "b", "proxy_server in tbot.yaml", 0),
            (Settings(), "auth_server: c:3025", "c:3025", "auth_server in tbot.yaml", 1),
        ],
    )
    def test_it_remembers_where_it_was_given(
        self, settings: Settings, text: str, address: str, named_by: str, may_be_auth_service: int
    ) -> None:
        found = proxy_address(settings, self.config(f"version: v2\n{text}\n"))
        assert isinstance(found, ConfiguredAddress)
        assert str(found) == address
        assert found.named_by == named_by
        assert found.may_be_auth_service == bool(may_be_auth_service)

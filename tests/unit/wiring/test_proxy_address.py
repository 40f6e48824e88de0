"""The address of the Teleport Proxy, and what is said when there is none."""

from pathlib import Path

import pytest

from dbproxy.errors import Code, ConfigError, UsageError
from dbproxy.identity import TbotConfig, parse_tbot_config
from dbproxy.settings import Settings
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

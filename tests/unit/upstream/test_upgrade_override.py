"""Setting and environment about the upgrade, read as Teleport's own tools read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.upstream import ProxyAddress
from dbproxy.upstream.upgrade_override import (
    UpgradeMode,
    override_named,
    upgrade_mode,
    upgrade_override,
)

ADDRESS = ProxyAddress("host", 443)
VARIABLE = "TELEPORT_TLS_ROUTING_CONN_UPGRADE"


def override(text: str, address: ProxyAddress = ADDRESS) -> bool | None:
    return upgrade_override("auto", {VARIABLE: text}, address)


@pytest.mark.parametrize(("setting", "expected"), [("always", True), ("never", False)])
@pytest.mark.parametrize("text", ["", "yes", "no", "host:443=yes", "host:443=no"])
def test_an_explicit_setting_decides_whatever_the_environment_says(
    setting: str, expected: bool, text: str
) -> None:
    assert upgrade_override(setting, {VARIABLE: text}, ADDRESS) is expected


def test_without_setting_and_variable_only_the_test_can_tell() -> None:
    assert upgrade_override("auto", {}, ADDRESS) is None
    assert override("") is None


@pytest.mark.parametrize(
    "text",
    [
        *("true", "TRUE", "yes", "Yes", "y", "1", "on"),
        *("host:443=yes", "host:443=1", "host:443=True"),
        "other:443=no,host:443=yes",
        "other:443=no;host:443=yes",
        "no;host:443=yes",
        "host:443=yes,no",
        "host:443=yes,host:443=no",
        "other:443=no,yes",
        "no,yes",
        "longer-host:443=yes",  # the address is looked for anywhere in the word
        "x host:443=yes",
        ";;,yes,",
    ],
)
def test_an_upgrade_is_ordered(text: str) -> None:
    assert override(text) is True


@pytest.mark.parametrize(
    "text",
    [
        *("false", "no", "0", "off", "maybe", " yes", "2"),
        "host=yes",  # without the port it is another address
        "host:4433=yes",
        "host:443=no,yes",
        "host:443=maybe,yes",
        "host:443=,yes",
        "other:443=yes",
        "yes,no",
        "yes,maybe",
        "host:443=yes=yes",
        ",",
        "=",
    ],
)
def test_an_upgrade_is_ruled_out(text: str) -> None:
    assert override(text) is False


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert override("[2001:db8::1]:443=yes", ProxyAddress("2001:db8::1", 443)) is True


@given(st.text(st.sampled_from("host:443=yesno,;")))
def test_any_text_decides(text: str) -> None:
    assert override(text) is (None if not text else override(text))
    assert (override(text) is None) == (not text)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", UpgradeMode.BOTH),
        ("legacy", UpgradeMode.LEGACY),
        ("LEGACY", UpgradeMode.LEGACY),
        ("websocket", UpgradeMode.WEBSOCKET),
        ("WebSocket", UpgradeMode.WEBSOCKET),
        ("both", UpgradeMode.BOTH),
        ("anything", UpgradeMode.BOTH),
    ],
)
def test_the_kind_of_upgrade(text: str, mode: UpgradeMode) -> None:
    assert upgrade_mode({f"{VARIABLE}_MODE": text}) is mode


def test_without_the_variable_both_kinds_are_offered() -> None:
    assert upgrade_mode({}) is UpgradeMode.BOTH


def test_what_has_decided_has_a_name() -> None:
    assert override_named("never") == "--connection-upgrade=never"
    assert override_named("auto") == VARIABLE

"""Which tunnel of a tbot.yaml somebody means."""

from pathlib import Path
from typing import Any

import pytest

from dbproxy.errors import UsageError
from dbproxy.fleet import settings_of_tunnel
from dbproxy.settings import Settings

TUNNELS = """
  - {type: database-tunnel, name: first, listen: 'tcp://127.0.0.1:1', service: one}
  - {type: database-tunnel, name: one, listen: 'tcp://127.0.0.1:2', service: two}
  - {type: database-tunnel, name: third, listen: 'tcp://127.0.0.1:3', service: two}
"""
OUTPUTS = """
  - {type: database, service: one, destination: {path: /one}}
  - {type: database, service: two, destination: {path: /two}}
"""


def meant(directory: Path, service: str | None, services: str, **changes: Any) -> Settings:
    config = directory / "tbot.yaml"
    config.write_text(f"version: v2\nservices:{services}{OUTPUTS}")
    return settings_of_tunnel(Settings(config=config, service=service, **changes))


@pytest.mark.parametrize(
    ("name", "listen", "service"),
    [
        ("first", "tcp://127.0.0.1:1", "one"),
        ("third", "tcp://127.0.0.1:3", "two"),
        ("one", "tcp://127.0.0.1:2", "two"),  # a name counts more than a service
    ],
)
def test_a_tunnel_is_meant_by_its_name(
    tmp_path: Path, name: str, listen: str, service: str
) -> None:
    settings = meant(tmp_path, name, TUNNELS)
    assert (settings.listen, settings.service, settings.tunnel) == (listen, service, True)
    assert settings.destination_dir == Path("/", service)


def test_a_service_with_several_tunnels_is_not_clear_enough(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several tunnels for two: one, third"):
        meant(tmp_path, "two", TUNNELS)


def test_a_single_tunnel_needs_no_name(tmp_path: Path) -> None:
    only = "\n  - {type: database-tunnel, listen: 'tcp://127.0.0.1:1', service: one}"
    assert meant(tmp_path, None, only).listen == "tcp://127.0.0.1:1"
    assert meant(tmp_path, "one", only).listen == "tcp://127.0.0.1:1"
    assert meant(tmp_path, None, TUNNELS).listen is None


@pytest.mark.parametrize(
    "changes", [{"port": 5}, {"listen": "tcp://127.0.0.1:5"}, {"terminate": True}]
)
def test_whoever_says_otherwise_means_no_tunnel(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = meant(tmp_path, "first", TUNNELS, **changes)
    assert settings.service == "first"
    assert not settings.tunnel


def test_where_there_is_no_tunnel_nothing_changes(tmp_path: Path) -> None:
    assert not meant(tmp_path, "one", "").tunnel
    assert not meant(tmp_path, "nobody", TUNNELS).tunnel
    assert settings_of_tunnel(Settings(service="one")) == Settings(service="one")

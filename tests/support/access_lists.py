"""Access control lists on files of a test."""

import errno
import os
from pathlib import Path

import pytest


def set_acl(path: Path, data: bytes) -> None:
    """Give the file this list; where the file system has none, the test is skipped, and says so."""
    try:
        os.setxattr(path, "system.posix_acl_access", data)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system has no access control lists")
        raise

"""A connection that could not even be tried, for want of a descriptor, is our own limit."""

import errno
import os

import pytest

from dbproxy.errors import Code, Fault
from dbproxy.upstream import ProxyAddress
from dbproxy.upstream.explain import explain_connect_failure

ADDRESS = ProxyAddress("teleport.example.com", 443)
NUMBERS = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS]


@pytest.mark.parametrize("number", NUMBERS, ids=[errno.errorcode[n] for n in NUMBERS])
def test_a_shortage_of_our_own_is_not_blamed_on_the_teleport_proxy(number: int) -> None:
    error = OSError("all attempts to connect to teleport.example.com:443 failed")
    error.__cause__ = OSError(number, os.strerror(number))
    problem = explain_connect_failure(ADDRESS, error)
    assert problem.code is Code.TOO_MANY_FILES
    assert problem.problem.fault is Fault.OPERATOR
    assert os.strerror(number).lower() in problem.message
    assert "cannot be reached" not in problem.problem.client_hint

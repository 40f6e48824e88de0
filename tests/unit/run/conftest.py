"""A destination with a server to dial, and a program that notes its signals."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback import TLSStream, open_server, tls_handler
from proxy_bench import ONLY_ECHOES, echo

from dbproxy.settings import Settings
from dbproxy.upstream import acceptance

MakeSettings = Callable[..., AbstractAsyncContextManager[Settings]]


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is content is not waited for long."""
    monkeypatch.setattr(acceptance, "REJECTION_TIME", 0.05)


@pytest.fixture
def settings_at_a_server(destination: Path, upstream_context: ssl.SSLContext) -> MakeSettings:
    """Settings for a tunnel to a server that echoes, or does what else it is told."""

    @asynccontextmanager
    async def make(
        handler: Callable[[TLSStream], Any] = echo,
        context: ssl.SSLContext = upstream_context,
        **changes: Any,
    ) -> AsyncIterator[Settings]:
        async with open_server(tls_handler(context, handler)) as port:
            values: dict[str, Any] = {
                "destination_dir": destination,
                "proxy": f"127.0.0.1:{port}",
                "tunnel": True,
                "ready_timeout": 0.0,
                **ONLY_ECHOES,
            }
            yield Settings(**(values | changes))

    return make

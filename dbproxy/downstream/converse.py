"""What client and upstream say to each other before the relay, translated by the protocol.

Nobody's turn is known here: the login of MySQL may ask back as often as a plugin likes. So both
sides are listened to at once, and whoever has said something is heard.
"""

from collections.abc import Mapping
from dataclasses import replace

import trio

from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.progress import Progress
from dbproxy.events import ClosedBy
from dbproxy.layers import LayerError
from dbproxy.protocols import Conversation, Say, VerdictReader
from dbproxy.relay import LayeredStream
from dbproxy.upstream import UpstreamConnection, explain_early_end, explain_end_after_greeting

__all__ = ["converse"]

_LOST = (trio.BrokenResourceError, LayerError)


async def converse(
    client: Client,
    upstream: UpstreamConnection,
    conversation: Conversation,
    progress: Progress,
    *,
    greeted: bool,
    verdict: VerdictReader | None = None,
) -> None:
    """Carry a conversation until it is over.

    Cancelled, it leaves both streams open, and bytes may be lost that it had received.

    Args:
        client: The client, who is listened to only if the conversation is with both.
        upstream: The upstream.
        conversation: Translates.
        progress: Counts the bytes.
        greeted: Whether the upstream has said something before.
        verdict: Reads what the client is going to get, and may put it differently.

    Raises:
        ClientError: The client broke the protocol.
        ClientGone: The client ended the connection.
        UpstreamError: The upstream ended it, or broke the protocol.
    """
    streams = {ClosedBy.UPSTREAM: upstream.stream}
    if conversation.hears_client:
        client.continue_with(conversation)
        streams[ClosedBy.CLIENT] = client.stream
    await _deliver(client, upstream, conversation.begin(), progress)
    while not conversation.over:
        heard = await _listen(streams)
        if ClosedBy.UPSTREAM in heard:
            data = _of_upstream(heard[ClosedBy.UPSTREAM], upstream, greeted=greeted)
            greeted = True
            said = conversation.from_upstream(data)
            if verdict is not None:
                said = replace(said, to_client=verdict.receive(said.to_client))
            await _deliver(client, upstream, said, progress)
        if ClosedBy.CLIENT in heard:
            data = _of_client(heard[ClosedBy.CLIENT])
            await _deliver(client, upstream, conversation.from_client(data), progress)


async def _listen(
    streams: Mapping[ClosedBy, LayeredStream],
) -> Mapping[ClosedBy, bytes | Exception]:
    """What either side has said, or why it says nothing more; one of them at least."""
    heard: dict[ClosedBy, bytes | Exception] = {}

    async def listen(side: ClosedBy, stream: LayeredStream) -> None:
        try:
            heard[side] = await stream.receive_some()
        except _LOST as error:
            heard[side] = error
        nursery.cancel_scope.cancel()  # receiving loses nothing when it is cancelled

    async with trio.open_nursery() as nursery:
        for side, stream in streams.items():
            nursery.start_soon(listen, side, stream)
    return heard


def _of_client(heard: bytes | Exception) -> bytes:
    if isinstance(heard, Exception):
        raise ClientGone("the client broke off during the login") from heard
    if not heard:
        raise ClientGone("the client closed the connection during the login")
    return heard


def _of_upstream(heard: bytes | Exception, upstream: UpstreamConnection, *, greeted: bool) -> bytes:
    explain = explain_end_after_greeting if greeted else explain_early_end
    if isinstance(heard, Exception):
        raise explain(upstream.address, heard) from heard
    if not heard:
        raise explain(upstream.address, None)
    return heard


async def _deliver(
    client: Client, upstream: UpstreamConnection, said: Say, progress: Progress
) -> None:
    if said.to_client:
        try:
            await client.stream.send_all(said.to_client)
        except _LOST as error:
            raise ClientGone("the client broke off during the login") from error
        progress.said_down += len(said.to_client)
    if said.to_upstream:
        try:
            await upstream.stream.send_all(said.to_upstream)
        except _LOST:
            return  # receiving from it, which comes next, says why: an alert may be waiting
        progress.said_up += len(said.to_upstream)

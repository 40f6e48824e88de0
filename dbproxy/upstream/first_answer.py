"""Asking a Teleport Proxy about itself, at every address that may be meant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from dbproxy.errors import UpstreamError
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.webapi import (
    FIND_PATH,
    AnswerError,
    ClusterFacts,
    FetchedAnswer,
    parse_find,
    web_address,
)

__all__ = ["Answer", "Fetch", "NoAnswer", "first_answer"]

HEAD_START: Final = 0.25
"""Seconds that a preferred address gets to answer, too, when another one was quicker: as long as
RFC 8305 §5 lets the preferred family of addresses be ahead."""


class Fetch(Protocol):
    """Asks a Teleport Proxy's web server, over TLS with the trust of a database connection."""

    async def __call__(self, address: ProxyAddress, path: str) -> FetchedAnswer:
        """GET `path` at `address`; needs no time-out of its own. Cancelled, it leaves no socket.

        Raises:
            UpstreamError: There is no connection, no trust or no HTTP response.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Teleport Proxy has said.

    Attributes:
        facts: The answer.
        address: Where it came from.
        web: Where the cluster wants to be reached.
    """

    facts: ClusterFacts
    address: ProxyAddress
    web: ProxyAddress


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why there is no answer."""

    reason: str


async def first_answer(candidates: Sequence[ProxyAddress], fetch: Fetch) -> Answer | NoAnswer:
    """Ask all of them at once: the first answer counts, or one of a better rank soon after it.

    Args:
        candidates: The preferred address first.
        fetch: Asks one of them.
    """
    if len(candidates) == 1:
        return await _answer_of(candidates[0], fetch)
    outcomes: dict[int, Answer | NoAnswer] = {}
    send, receive = trio.open_memory_channel[tuple[int, Answer | NoAnswer]](len(candidates))

    async def ask(rank: int) -> None:
        await send.send((rank, await _answer_of(candidates[rank], fetch)))

    with send, receive:
        async with trio.open_nursery() as nursery:
            for rank in range(len(candidates)):
                nursery.start_soon(ask, rank)
            with trio.CancelScope() as patience:
                while not _is_decided(outcomes, len(candidates)):
                    rank, outcome = await receive.receive()
                    outcomes[rank] = outcome
                    if isinstance(outcome, Answer):
                        soon = trio.current_time() + HEAD_START
                        patience.deadline = min(patience.deadline, soon)
            nursery.cancel_scope.cancel()
    return _best(outcomes)


def _is_decided(outcomes: dict[int, Answer | NoAnswer], candidates: int) -> bool:
    """Whether all that could be better than the best answer so far have failed."""
    for rank in range(candidates):
        outcome = outcomes.get(rank)
        if not isinstance(outcome, NoAnswer):
            return outcome is not None
    return True


def _best(outcomes: dict[int, Answer | NoAnswer]) -> Answer | NoAnswer:
    ranked = [outcomes[rank] for rank in sorted(outcomes)]
    for outcome in ranked:
        if isinstance(outcome, Answer):
            return outcome
    return NoAnswer("; ".join(it.reason for it in ranked if isinstance(it, NoAnswer)))


async def _answer_of(address: ProxyAddress, fetch: Fetch) -> Answer | NoAnswer:
    try:
        facts = parse_find(await fetch(address, FIND_PATH))
        return Answer(facts, address, web_address(facts, address))
    except UpstreamError as error:
        return NoAnswer(error.message)
    except AnswerError as error:
        return NoAnswer(f"the server at {address} {error}")

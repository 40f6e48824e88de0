"""What a check finds, and what a check is."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Generic, TypeVar

from dbproxy.errors import PROBLEMS, Code, DBProxyError

__all__ = ["Check", "Finding", "Verdict", "failed", "failed_with", "fine", "skipped", "warned"]

Evidence = TypeVar("Evidence")


@unique
class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"
    """It could not be made, because of what another check has found."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        verdict: How it ended.
        message: What was found, a sentence without a full stop.
        code: The problem, for a warning or a failure.
        next_step: What the operator does next, likewise.
    """

    verdict: Verdict
    message: str
    code: Code | None = None
    next_step: str | None = None


@dataclass(frozen=True, slots=True)
class Check(Generic[Evidence]):
    """One thing to look at.

    Attributes:
        name: Stable; never renamed, never reused.
        title: What is fine when it is fine.
        judge: Evidence in, finding out; neither looks anywhere else nor raises.
    """

    name: str
    title: str
    judge: Callable[[Evidence], Finding]


def fine(message: str) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, message)


def skipped(reason: str) -> Finding:
    """The check could not be made."""
    return Finding(Verdict.SKIPPED, reason)


def warned(code: Code, message: str, *, next_step: str | None = None) -> Finding:
    """It works, but it should not stay so; the table has the next step unless given."""
    return Finding(Verdict.WARNING, message, code, next_step or PROBLEMS[code].next_step)


def failed(code: Code, message: str, *, next_step: str | None = None) -> Finding:
    """It does not work, or is not safe; the table has the next step unless given."""
    return Finding(Verdict.FAILURE, message, code, next_step or PROBLEMS[code].next_step)


def failed_with(error: DBProxyError) -> Finding:
    """What a part of dbproxy itself has refused."""
    return failed(error.code, error.message, next_step=error.next_step)

"""What one run of the command has learnt before its subcommand starts."""

from dataclasses import dataclass, field

import click

from dbproxy.cli.values import Value

__all__ = ["Invocation", "invocation_of"]


@dataclass(slots=True)
class Invocation:
    """Shared by the group, its commands and the border where errors are reported.

    Attributes:
        flags: The options given before the command, by their field of `Settings`.
        debug: Whether to show how an unexpected error came about.
    """

    flags: dict[str, Value] = field(default_factory=dict)
    debug: bool = False


def invocation_of(context: click.Context) -> Invocation:
    """The invocation that `context` is part of."""
    invocation = context.ensure_object(Invocation)
    assert isinstance(invocation, Invocation)  # noqa: S101
    return invocation

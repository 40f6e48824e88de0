"""A group that imports a command's module when the command is used."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

import click

from dbproxy.cli.guess import guess

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A click group whose commands live in modules of their own.

    `dbproxy db` then starts without loading what only `dbproxy lab` needs.

    Attributes:
        places: For each command, in the order of the help: the module with an object of its name.
    """

    places: ClassVar[Mapping[str, str]]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of `places`."""
        return [name for name, module in self.places.items() if find_spec(module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command; None when there is no such command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(import_module(self.places[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual; the error about a word that is no command names one that is like it."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            raise click.UsageError(f"no such command {name!r}{guess(name, known)}", ctx)
        return super().resolve_command(ctx, args)

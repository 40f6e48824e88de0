"""A command that takes another command's words after `--`."""

from typing import Final

import click

from dbproxy.cli.settings_command import SettingsCommand
from dbproxy.errors import UsageError

__all__ = ["CommandAfterDashes", "words_after_dashes"]

_DASHES: Final = "--"
_KEY: Final = "dbproxy.words_after_dashes"


class CommandAfterDashes(SettingsCommand):
    """Leaves everything after `--` alone, so that the service before it may be left out.

    click itself tells words before `--` from those after it only by their number.

    Attributes:
        metavar: What the usage shows for them.
    """

    metavar = "-- COMMAND [ARGUMENT]..."
    allow_extra_args = True  # for a message that says where they belong

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words after `--`, and parse those before it.

        Raises:
            UsageError: There are more of those than the service, such as a command without `--`.
        """
        end = args.index(_DASHES) if _DASHES in args else len(args)
        ctx.meta[_KEY] = tuple(args[end + 1 :])
        extra = super().parse_args(ctx, args[:end])
        if extra and _DASHES not in args:
            raise UsageError(
                f"unexpected argument {extra[0]!r}: there are no two dashes before it",
                next_step=f"Put them there: `{ctx.command_path} SERVICE -- {extra[0]} …`.",
            )
        if extra:
            raise UsageError(
                f"`{extra[0]}` is one word too many: only the service comes before two dashes",
                next_step="Give the rest behind them:"
                f" `{ctx.command_path} [SERVICE] {self.metavar}`.",
            )
        return extra

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """As usual, and what follows."""
        return [*super().collect_usage_pieces(ctx), self.metavar]


def words_after_dashes(context: click.Context) -> tuple[str, ...]:
    """The words that were given after `--`."""
    words: tuple[str, ...] = context.meta[_KEY]
    return words

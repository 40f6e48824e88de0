"""A command whose options are fields of `Settings`."""

import click

from dbproxy.cli.options import SettingOption, service_help

__all__ = ["SettingsCommand"]


class SettingsCommand(click.Command):
    """A command whose help lists its own options before the global ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the argument, if there is one, the command's own options and the global ones."""
        own: list[tuple[str, str]] = []
        everywhere: list[tuple[str, str]] = []
        has_argument = False
        for parameter in self.get_params(ctx):
            if not isinstance(parameter, click.Option):
                has_argument = True
            elif record := parameter.get_help_record(ctx):
                is_global = isinstance(parameter, SettingOption) and parameter.is_global
                (everywhere if is_global else own).append(record)
        for title, records in (
            ("Argument", [("SERVICE", service_help())] if has_argument else []),
            ("Options", own),
            ("Global options, before the command or after it", everywhere),
        ):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: `format_options` writes the argument, in every release of click."""

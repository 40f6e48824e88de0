"""The options of the command line, derived from `Settings`.

Global options may be given before the command and after it; the later one wins. Flags beat the
environment. A flag also beats an environment variable that contradicts it: with
`DBPROXY_TUNNEL=1` in the environment, `--terminate` on the command line decides. The environment
is read only where an option's last chance is, after the command, so a variable that a flag
overrides may hold nonsense.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from dbproxy.cli.durations import format_duration
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.values import Value, value_type
from dbproxy.errors import UsageError
from dbproxy.settings import Kind, Option, Scope, Settings, environment_names, options

__all__ = [
    "DEFAULT_CONFIG",
    "ONE_PORT",
    "SettingOption",
    "flags_of",
    "global_options",
    "lookup_options",
    "service_help",
    "settings_from",
    "settings_options",
]

DEFAULT_CONFIG: Final = Path("/etc/tbot.yaml")
"""Where the Machine ID guide puts tbot's configuration."""

ONE_PORT: Final = (Scope.GLOBAL, Scope.ARGUMENT, Scope.SERVE, Scope.DB)
"""What describes a port for one service."""

SUPERSEDES: Final[Mapping[str, tuple[str, ...]]] = {
    "tunnel": ("terminate", "server_cert", "server_key"),
    "terminate": ("tunnel",),
    "port": ("listen",),
    "listen": ("port",),
    "destination_dir": ("identity_file", "cert", "key", "ca"),
    "identity_file": ("destination_dir", "cert", "key", "ca"),
    "cert": ("destination_dir", "identity_file"),
    "key": ("destination_dir", "identity_file"),
    "ca": ("destination_dir", "identity_file"),
}
"""Which environment settings a flag leaves without effect, because both cannot hold."""


LOOKUP: Final[Mapping[str, str]] = {
    "db_user": "The database user, to choose between outputs for one service.",
    "db_name": "The database name, likewise.",
    "format": "How the answer on standard output looks.",
}
"""Of the options that serving has, those that a look at the identity needs, in its own words."""


class SettingOption(click.Option):
    """An option that stands for a field of `Settings`, where the environment counts too."""

    def __init__(self, name: str, option: Option, default: object) -> None:
        flag = option.kind is Kind.FLAG
        super().__init__(
            [name, *option.flags],
            help=option.help,
            metavar=None if flag else _metavar(option),
            type=value_type(option),
            is_flag=flag,
            multiple=option.kind is Kind.TEXTS,
            default=_shown_default(option, default),
            show_default=not flag and default not in {None, ()},
            envvar=list(environment_names(name)),
            show_envvar=True,
        )
        self.is_global = option.scope is Scope.GLOBAL

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The environment's value, unless a flag before the command has decided already."""
        if self.name in invocation_of(ctx).flags:
            return None
        return super().resolve_envvar_value(ctx)


class EarlyOption(SettingOption):
    """A global option before the command: the environment is left to the one after it."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Nothing: only what was typed counts here."""
        return None


def global_options() -> list[click.Parameter]:
    """The options that may come before the command."""
    return [EarlyOption(*declared) for declared in options(Scope.GLOBAL)]


def settings_options(*scopes: Scope) -> list[click.Parameter]:
    """Parameters for the fields of `Settings` in these scopes.

    The argument comes first, then the options in the order of their declaration.
    """
    wanted = frozenset(scopes)
    arguments = options(*(wanted & {Scope.ARGUMENT}))
    return [
        *(_argument(name, option) for name, option, _ in arguments),
        *(SettingOption(*declared) for declared in options(*(wanted - {Scope.ARGUMENT}))),
    ]


def lookup_options(*more: Scope, words: Mapping[str, str] = LOOKUP) -> list[click.Parameter]:
    """Parameters for a command that looks at the identity and opens no port.

    Args:
        more: Scopes of options that it has besides.
        words: Of the options that serving has, those that it needs, in its own words.
    """
    arguments = [_argument(name, option) for name, option, _ in options(Scope.ARGUMENT)]
    own = [
        SettingOption(name, replace(option, help=words[name]), default)
        for name, option, default in options(*Scope)
        if name in words
    ]
    everywhere = options(*more, Scope.GLOBAL)
    return [*arguments, *own, *(SettingOption(*declared) for declared in everywhere)]


def settings_from(context: click.Context, *, needs_config: bool = False) -> Settings:
    """Everything that flags, environment and defaults say.

    Args:
        context: Of the command.
        needs_config: Whether tbot's configuration is needed in any case.

    Raises:
        UsageError: The settings contradict each other.
    """
    flags = invocation_of(context).flags | flags_of(context)
    values = _without_superseded(_given(context, ParameterSource.ENVIRONMENT), flags) | flags
    variables = {name: _variable(name) for name in values.keys() - flags.keys()}
    try:
        settings = _make_settings(values)
    except UsageError as error:
        message = _by_origin(error.message, variables)
        raise UsageError(message, next_step=f"See `{context.command_path} --help`.") from error
    return _with_default_config(settings, needs_config=needs_config)


def _make_settings(values: Mapping[str, Any]) -> Settings:
    return Settings(**values)


def _variable(name: str) -> str:
    """The environment variable that a setting's value came from."""
    names = environment_names(name)
    return next((variable for variable in names if os.environ.get(variable)), names[0])


def _by_origin(message: str, variables: Mapping[str, str]) -> str:
    """The message with the names of environment variables for the flags of what they set."""
    for name, option, _ in options(*Scope):
        if name in variables and option.flags:
            flag = re.escape(max(option.flags, key=len))
            message = re.sub(rf"(?<![\w-]){flag}(?![\w-])", variables[name], message)
    return message


def flags_of(context: click.Context) -> dict[str, Value]:
    """The values that were typed on this level of the command line."""
    return _given(context, ParameterSource.COMMANDLINE)


def service_help() -> str:
    """The help of the positional argument, with its environment variable."""
    ((name, option, _),) = options(Scope.ARGUMENT)
    return f"{option.help}  [env var: {', '.join(environment_names(name))}]"


def _argument(name: str, option: Option) -> click.Argument:
    return click.Argument(
        [name],
        required=False,
        metavar=option.metavar,
        type=value_type(option),
        envvar=list(environment_names(name)),
    )


def _metavar(option: Option) -> str | None:
    return "|".join(option.choices) if option.kind is Kind.CHOICE else option.metavar


def _shown_default(option: Option, default: object) -> object:
    return format_duration(default) if isinstance(default, float) else default


def _given(context: click.Context, source: ParameterSource) -> dict[str, Value]:
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is source
    }


def _without_superseded(
    environment: dict[str, Value], flags: Mapping[str, Value]
) -> dict[str, Value]:
    gone = {name for flag in flags for name in SUPERSEDES.get(flag, ())}
    return {name: value for name, value in environment.items() if name not in gone}


def _with_default_config(settings: Settings, *, needs_config: bool) -> Settings:
    """Fall back to the system's tbot configuration where something is left to look up."""
    known = settings.names_identity and settings.proxy is not None
    complete = known and not needs_config
    if settings.config is not None or complete or not DEFAULT_CONFIG.exists():
        return settings
    return replace(settings, config=DEFAULT_CONFIG)

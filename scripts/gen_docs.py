"""Write the reference pages that derive from the source: `docs/errors.md` and `docs/options.md`.

python scripts/gen_docs.py           write them
python scripts/gen_docs.py --check   exit 1 when one of them is stale
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dbproxy.errors import Code
from dbproxy.explain import AREAS, Area, Section, sections
from dbproxy.settings import Kind, Option, Scope, environment_names, options

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"

NOTICE: Final = "<!-- Written by scripts/gen_docs.py; change the source instead. -->\n\n"

ERRORS_INTRO: Final = """\
# Errors

Every failure has a stable code. The same code appears in the log, in the record of the connection
and in the message that the database client prints, so that one search finds everything about it.
A code is never renamed and never used for something else.

`dbproxy explain CODE` prints the same page on a terminal.

"""

OPTIONS_INTRO: Final = """\
# Options

`dbproxy db` and `dbproxy start` open ports; `dbproxy run` and `dbproxy connect` open one and start
a command beside it; `dbproxy env` says how to connect to one. `dbproxy doctor` and `dbproxy
identity` take the global options, SERVICE, `--db-user`, `--db-name` and `--format` (text or json).
`dbproxy explain`, `dbproxy lab` and `dbproxy demo` have options of their own, which their `--help`
shows; see also [the lab](lab.md).

Every option has an environment variable. A flag beats the environment, and the environment beats
tbot's configuration file. For a switch, `1`, `true`, `yes` and `on` mean given, and `0`,
`false`, `no` and `off` not given; an empty variable counts as unset. There are a few
[variables without an option](#environment-variables-without-an-option).

Durations are seconds as a number, or carry units: `500ms`, `10s`, `1m30s`, `1h`.

"""

OPTIONS_END: Final = """
## Environment variables without an option

- `STATE_DIRECTORY`: where `--terminate` keeps its local authority, `dbproxy-ca.crt` and its key;
  systemd sets it with `StateDirectory=`. Of several directories, separated by colons, the first one
  counts. Without it, that is `dbproxy` in `XDG_STATE_HOME`, which is `~/.local/state` by default
  (on macOS `~/Library/Application Support/dbproxy`).
- `SSL_CERT_FILE`, `SSL_CERT_DIR`: the system's authorities, as OpenSSL reads them; they are trusted
  for the Teleport Proxy.
- `NO_COLOR`: no colours, also on a terminal.
"""

SCOPES: Final = {
    Scope.GLOBAL: "Global options: before the command or after it",
    Scope.ARGUMENT: "The argument",
    Scope.SERVE: "Options of all that opens ports",
    Scope.DB: "Options for one port: `dbproxy db`, `run`, `connect` and `env`",
    Scope.WORKERS: "Options of `dbproxy db` only (`env` takes them too)",
    Scope.MESSAGE: "Options of `dbproxy db` and `dbproxy start`",
    Scope.RUN: "Options of `dbproxy run` and `dbproxy connect`",
    Scope.ENV: "Options of `dbproxy env`",
    Scope.DOCTOR: "Options of `dbproxy doctor`",
}


def errors_page() -> str:
    """The page about every `Code`, by area."""
    overview = "\n".join(_overview(area) for area in AREAS)
    pages = "\n".join(_error_page(code) for area in AREAS for code in area.pages)
    return f"{NOTICE}{ERRORS_INTRO}{overview}\n\n{pages}"


def _overview(area: Area) -> str:
    codes = ", ".join(_link(code) for code in area.pages)
    return f"- {area.title}: {codes}"


def _error_page(code: Code) -> str:
    parts = "\n\n".join("\n\n".join(_error_section(section)) for section in sections(code))
    return f"## {code}\n\n{parts}\n"


def _error_section(section: Section) -> Iterator[str]:
    """The paragraphs of one section, its title in front of the first."""
    title = [f"**{section.title}.**"] if section.title else []
    first, rest = section.paragraphs[:1], section.paragraphs[1:]
    related = [", ".join(map(_link, section.related))] if section.related else []
    yield " ".join([*title, *first, *related])
    yield from rest
    if section.looks:
        yield "\n".join(f"- `{look.command}`: {look.shows}" for look in section.looks)


def _link(code: Code) -> str:
    return f"[`{code}`](#{code})"


def options_page() -> str:
    """The page about every field of `Settings`, by scope."""
    sections = "\n".join(_scope_section(scope, title) for scope, title in SCOPES.items())
    return f"{NOTICE}{OPTIONS_INTRO}{sections}{OPTIONS_END}"


def _scope_section(scope: Scope, title: str) -> str:
    return f"## {title}\n\n" + "\n".join(_option_lines(scope))


def _option_lines(scope: Scope) -> Iterator[str]:
    for name, option, default in options(scope):
        variables = ", then ".join(f"`{variable}`" for variable in environment_names(name))
        yield f"### `{_spelling(option)}`\n"
        yield f"{option.help}\n"
        if option.choices:
            yield f"- One of: {', '.join(f'`{choice}`' for choice in option.choices)}"
        if option.kind is Kind.TEXTS:
            yield "- May be given several times; separated by commas in the environment"
        if option.kind is not Kind.FLAG and default not in {None, ()}:
            yield f"- Default: `{_plain(default)}`"
        yield f"- Environment: {variables}\n"


def _spelling(option: Option) -> str:
    return " ".join([", ".join(option.flags), option.metavar or ""]).strip()


def _plain(default: object) -> str:
    return f"{default:g}s" if isinstance(default, float) else str(default)


PAGES: Final[dict[str, Callable[[], str]]] = {"errors.md": errors_page, "options.md": options_page}


def stale_pages() -> list[Path]:
    """The pages whose file is missing or says something else than the source."""
    pages = {DOCS / name: make() for name, make in PAGES.items()}
    return [
        path
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` only compare; returns the exit status."""
    if "--check" in arguments:
        for path in stale_pages():
            sys.stderr.write(f"docs/{path.name} is stale: run `python scripts/gen_docs.py`\n")
        return 1 if stale_pages() else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`dbproxy explain`: the pages about error codes."""

from typing import Final

import click
from click.shell_completion import CompletionItem

from dbproxy.errors import PROBLEMS, Code

__all__ = ["explain"]

INDENT: Final = "  "
CODE_WIDTH: Final = max(map(len, Code)) + 2

HELP: Final = """\
Show the page about an error code: what it means, who can put it right, what to do next, what the
client sees, how to find out more. Without CODE, list every code.

CODE stands in brackets at the end of an error message; a whole message in quotes will do too.
"""


def _completions(
    _context: click.Context, _parameter: click.Parameter, typed: str
) -> list[CompletionItem]:
    return [CompletionItem(code.value) for code in Code if code.startswith(typed)]


@click.command(help=HELP, short_help="Explain an error code.")
@click.argument("code", required=False, shell_complete=_completions)
def explain(code: str | None) -> None:
    """Show one page, or the list of all."""
    if code is None:
        _list_codes()
    else:
        _show_page(code)


def _list_codes() -> None:
    from dbproxy.cli.console import Answer  # late, so that the help comes quickly
    from dbproxy.explain import AREAS

    answer = Answer()
    for area in AREAS:
        answer.line((area.title, "bold"))
        for code in area.pages:
            first_sentence = PROBLEMS[code].meaning.split(". ")[0].rstrip(".")
            answer.prose(
                first_sentence,
                indent=INDENT + " " * CODE_WIDTH,
                first=INDENT + code.ljust(CODE_WIDTH),
            )
        answer.line()
    answer.line("`dbproxy explain CODE` shows the page of a code.")


def _show_page(text: str) -> None:
    from dbproxy.cli.console import Answer  # late, so that the help comes quickly
    from dbproxy.explain import find_code, sections

    code = find_code(text)
    answer = Answer()
    answer.line((code, "bold"))
    for section in sections(code):
        answer.line()
        if section.title:
            answer.line((section.title, "bold"))
        for number, paragraph in enumerate(section.paragraphs):
            if number and not section.title:
                answer.line()
            answer.prose(paragraph, indent=INDENT)
        for look in section.looks:
            answer.line(INDENT, ("$ ", "dim"), (look.command, "cyan"))
            answer.prose(look.shows, indent=INDENT * 2)
        if section.related:
            answer.line(INDENT, ", ".join(section.related))

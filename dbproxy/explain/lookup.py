"""Finding the page of a code, also of one that is not quite right."""

import difflib
import re
from typing import Final

from dbproxy.errors import Code, UsageError
from dbproxy.explain.client_pages import CLIENT_PAGES, OWN_PAGES
from dbproxy.explain.identity_pages import IDENTITY_PAGES
from dbproxy.explain.page import Area, Page
from dbproxy.explain.start_pages import COMMAND_PAGES, LISTENER_PAGES, SETTINGS_PAGES
from dbproxy.explain.teleport_pages import TELEPORT_PAGES
from dbproxy.explain.upstream_pages import UPSTREAM_PAGES

__all__ = ["AREAS", "find_code", "page_of"]

AREAS: Final = (
    Area("Options and configuration", SETTINGS_PAGES),
    Area("The identity that tbot writes", IDENTITY_PAGES),
    Area("The listener", LISTENER_PAGES),
    Area("The way to the Teleport Proxy", UPSTREAM_PAGES),
    Area("What Teleport says", TELEPORT_PAGES),
    Area("Clients", CLIENT_PAGES),
    Area("The command that is run", COMMAND_PAGES),
    Area("dbproxy itself", OWN_PAGES),
)

_WORD: Final = re.compile(r"[a-z]+(?:[-_ ][a-z]+)*")
_IN_BRACKETS: Final = re.compile(r"\[([a-z-]+)\]")


def page_of(code: Code) -> Page:
    """The longer text about `code`.

    Raises:
        AssertionError: There is none: a mistake of ours, as each code has one.
    """
    for area in AREAS:
        if code in area.pages:
            return area.pages[code]
    raise AssertionError(f"no area has a page about {code}")


def find_code(text: str) -> Code:
    """The code that `text` names, or has in brackets at the end as error messages do.

    Raises:
        UsageError: There is no such code; the text suggests the nearest one.
    """
    for name in (*reversed(_IN_BRACKETS.findall(text)), _normalised(text)):
        if name in set(Code):
            return Code(name)
    near = difflib.get_close_matches(_normalised(text), list(Code), n=1)
    suggestion = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"there is no error code {text!r}{suggestion}",
        next_step="`dbproxy explain` lists every code.",
    )


def _normalised(text: str) -> str:
    """`Key_Mismatch`, `code=key-mismatch` and `'key mismatch'` are meant well."""
    words = _WORD.findall(text.lower().removeprefix("code="))
    return max(words, key=len, default="").replace("_", "-").replace(" ", "-")

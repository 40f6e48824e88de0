"""The pages behind `dbproxy explain CODE` and the documentation's page of errors.

`dbproxy.errors` has one short row for each code. What is longer stands here: how a problem comes
about, what the client notices, how to find out more.
"""

from dbproxy.explain.lookup import AREAS, find_code, page_of
from dbproxy.explain.page import Area, Look, Page, Sees
from dbproxy.explain.sections import Section, put_right_by, sections

__all__ = [
    "AREAS",
    "Area",
    "Look",
    "Page",
    "Section",
    "Sees",
    "find_code",
    "page_of",
    "put_right_by",
    "sections",
]

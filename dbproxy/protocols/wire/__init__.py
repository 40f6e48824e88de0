"""Ways of speaking on a connection: how each begins, and how it says no. Without I/O."""

from dbproxy.protocols.wire.base import Answering, Sort, Wire, one_line, shortened, sort_of

__all__ = ["Answering", "Sort", "Wire", "one_line", "shortened", "sort_of"]

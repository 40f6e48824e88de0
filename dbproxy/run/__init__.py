"""A proxy for the length of a command: it listens, the command runs beside it, and both end."""

from dbproxy.run.alongside import run_alongside
from dbproxy.run.process import Command
from dbproxy.run.supervision import FORWARDED

__all__ = ["FORWARDED", "Command", "run_alongside"]

"""The first moments of `dbproxy`, and of `python -m dbproxy`.

Loading the command line takes a few tenths of a second, in which Python would answer Ctrl-C with a
traceback out of the middle of an import. So this module loads next to nothing, and until
`dbproxy.cli.main` takes over, Ctrl-C ends the process without a word, as it ends most programs.

A worker leaves Ctrl-C, and the end of the terminal, to its supervisor.
"""

import os
import signal
from typing import NoReturn

from dbproxy.workers.variable import HANDOVER

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    if HANDOVER in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dbproxy import cli  # late: see above

    cli.main()


if __name__ == "__main__":
    main()

"""The first moments of `dbproxy`, and of `python -m dbproxy`.

Loading the command line takes a few tenths of a second, in which Python would answer Ctrl-C with a
traceback out of the middle of an import. So this module loads next to nothing, and until
`dbproxy.cli.main` takes over, Ctrl-C ends the process without a word, as it ends most programs.

A worker leaves Ctrl-C, and the end of the terminal, to its supervisor.
"""

import os
import signal
from typing import NoReturn

from dbproxy.workers.beginning import HANDOVER, TERMINAL_SIGNALS

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    if HANDOVER in os.environ:
        for number in TERMINAL_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, TERMINAL_SIGNALS
        )  # which began with them blocked
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dbproxy import cli  # late: see above

    cli.main()


if __name__ == "__main__":
    main()

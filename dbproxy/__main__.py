"""The first moments of `dbproxy`, and of `python -m dbproxy`.

Loading the command line takes a few tenths of a second, in which Python would answer Ctrl-C with a
traceback out of the middle of an import. So this module loads next to nothing, and until
`dbproxy.cli.main` takes over, Ctrl-C ends the process without a word, as it ends most programs.
"""

import signal
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dbproxy import cli  # late: see above

    cli.main()


if __name__ == "__main__":
    main()

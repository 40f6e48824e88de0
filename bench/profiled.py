"""dbproxy with a profiler: SIGUSR1 switches it on, SIGUSR2 switches it off and writes the file.

python bench/profiled.py FILE ARGUMENTS…
"""

import cProfile
import signal
import sys
from pathlib import Path
from types import FrameType

from dbproxy.__main__ import main


def run(file: Path) -> None:
    """Run dbproxy with what is left of the command line."""
    profiler = cProfile.Profile()

    def begin(number: int, frame: FrameType | None) -> None:
        profiler.enable()

    def end(number: int, frame: FrameType | None) -> None:
        profiler.disable()
        unfinished = file.with_suffix(".part")
        profiler.dump_stats(unfinished)
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    main()


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    run(path)

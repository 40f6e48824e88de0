"""When the files of an identity are worth reading. No I/O: looks go in, verdicts come out.

The problem: tbot rewrites one file after another, in place. Key and certificate tell when they do
not belong together, but lists of authorities do not, so a reader in the middle of a CA rotation
could take the new certificate with the old authorities and never notice.

The choice: a renewal rewrites every file. So it is complete once each file has changed since the
last good read, and until then there is nothing to read: whoever asks goes on with the identity that
it has, and does not wait. Where some files are not rewritten, because they are left over or
somebody else writes them, a moment without a change has to do: a short one when they are old, and a
longer one when the last renewal wrote them as well, so that this one is likely to come to them yet.
Where the changes never end, or never lead to anything usable, patience ends. The very first look
has nothing to compare with: what it finds is read at once, and once more a little later if it was
written just before.

A list of authorities may also be cut just between two of them, and nothing in it tells. tbot writes
one file after another, so only the file written last can be cut: where that is a list, it has to
be left alone for a moment first.

What remains: a writer that pauses for longer than that (0.15 s within a list, a second between two
files), or takes more than five seconds in all, may be read in between, and so may a writer that was
at work before the first look. It is put right when the rest has been written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from math import inf
from typing import Final

from dbproxy.identity.stamp import Stamp

__all__ = ["Rewrites", "Verdict"]

PATIENCE: Final = 1.0
"""Seconds without a change after which what still looks torn is a failure. tbot writes its files
within milliseconds; a loaded machine or a network file system stretches that; a user at a prompt
still accepts a second."""
LONGEST_REWRITE: Final = 5.0
"""Seconds after which a rewrite that goes on and on is a failure."""
PAUSE: Final = 0.05
"""Seconds between two attempts to read what looks the same: one costs a few milliseconds."""
QUIET: Final = 0.15
"""Seconds without a change after which a rewrite of some of the files counts as complete, unless
more are expected; and after which a list counts as complete."""
RECHECK_INTERVAL: Final = 1.0
"""Seconds after which files that look unchanged are read again, when there is reason to."""
TIMESTAMP_GRANULARITY: Final = 2.0
"""Seconds during which a further write may leave the same times in the file system: some network
file systems keep whole seconds, FAT keeps every second one."""
_SAME_RENEWAL: Final = int(LONGEST_REWRITE * 1e9)
"""Nanoseconds between two files that one renewal wrote, at most."""


@unique
class Verdict(Enum):
    """What a look at the files says."""

    UNCHANGED = "unchanged"
    """Nothing was written since the last read."""
    UNDER_WAY = "under way"
    """Somebody is writing: it is too early to read."""
    READ = "read"
    """It is time to read."""


@dataclass(slots=True)
class _Change:
    """A difference from what was read last.

    Attributes:
        stamp: What the files look like.
        began: When the first difference was seen.
        latest: When they were first seen to look like this.
        before: When they were last seen to look otherwise.
        torn: When they were read looking like this, in vain.
    """

    stamp: Stamp
    began: float
    latest: float
    before: float
    torn: float | None = None


class Rewrites:
    """Follows the rewrites of the files of one identity.

    All times are seconds of a clock that never jumps, except `wall`: the system's clock, in seconds
    since the epoch, which may be wrong.

    Args:
        ends_with_a_list: Whether the file that was written last may be cut without being damaged.
    """

    def __init__(self, ends_with_a_list: Callable[[Stamp], bool]) -> None:
        self._ends_with_a_list = ends_with_a_list
        self._good: Stamp | None = None
        self._read: Stamp | None = None
        self._change: _Change | None = None
        self._recheck = inf
        self._looked = -inf

    def look(self, stamp: Stamp, now: float, wall: float) -> Verdict:
        """Take note of what the files look like now, and say what to do."""
        self._note(stamp, now)
        self._looked = now
        if self._change is None:
            return Verdict.READ if now >= self._recheck else Verdict.UNCHANGED
        return Verdict.READ if self._is_ready(self._change, now, wall) else Verdict.UNDER_WAY

    def is_patience_over(self, now: float) -> bool:
        """Whether what cannot be read now has had its time to become readable."""
        if self._change is None:
            return self._read != self._good
        change = self._change
        return now - change.latest >= PATIENCE or now - change.began >= LONGEST_REWRITE

    def read_torn(self, stamp: Stamp, now: float) -> None:
        """Take note of a read that a write under way may have spoilt."""
        change = self._change or _Change(stamp, now, now, now)
        if change.stamp != stamp:
            change.stamp, change.latest, change.before = stamp, now, now
        change.torn = now
        self._change = change

    def read_failed(self, stamp: Stamp, now: float) -> None:
        """Take note of a read that failed for good, as long as the files look the same."""
        self._read, self._change = stamp, None
        self._recheck = now + RECHECK_INTERVAL

    def read_good(self, stamp: Stamp, now: float, wall: float) -> None:
        """Take note of a read that succeeded."""
        self._read, self._good, self._change = stamp, stamp, None
        fresh = stamp.age(wall) < TIMESTAMP_GRANULARITY
        self._recheck = now + RECHECK_INTERVAL if fresh else inf

    def _note(self, stamp: Stamp, now: float) -> None:
        if stamp == self._read:
            # Read in vain, it stays a change: it has not been read for good.
            if self._change is not None and self._change.torn is None:
                self._change = None
        elif self._change is None:
            self._change = _Change(stamp, now, now, self._looked)
        elif stamp != self._change.stamp:
            self._change = _Change(stamp, self._change.began, now, self._looked)

    def _is_ready(self, change: _Change, now: float, wall: float) -> bool:
        if change.torn is not None:
            return now - change.torn >= PAUSE
        if self.is_patience_over(now):
            return True
        is_quiet = now - change.latest >= QUIET
        # Whatever the clocks say, a change is no older than the last look that did not see it.
        is_old = min(change.stamp.age(wall), now - change.before) >= TIMESTAMP_GRANULARITY
        if self._read is None or _is_rewritten(self._good, change.stamp):
            return is_quiet or is_old or not self._ends_with_a_list(change.stamp)
        return is_old or (is_quiet and not _is_more_expected(self._good, change.stamp))


def _is_rewritten(old: Stamp | None, new: Stamp) -> bool:
    """Whether each file that is there has been written since it looked like `old`."""
    if old is None or len(old.files) != len(new.files):
        return False
    pairs = zip(old.files, new.files, strict=True)
    return any(new.files) and all(now is None or now != before for before, now in pairs)


def _is_more_expected(old: Stamp | None, new: Stamp) -> bool:
    """Whether a file that the renewal before wrote still looks as it did in `old`."""
    if old is None or len(old.files) != len(new.files):
        return False
    end = max((file.modified for file in old.files if file is not None), default=0)
    return any(
        before is not None and before == now and end - before.modified <= _SAME_RENEWAL
        for before, now in zip(old.files, new.files, strict=True)
    )

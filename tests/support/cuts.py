"""The same bytes in one piece and in many."""

from collections.abc import Sequence
from itertools import pairwise


def cut_at(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The pieces of `data`, cut at these places; one behind the end counts from the start."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]

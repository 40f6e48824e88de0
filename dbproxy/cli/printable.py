"""Text that came from outside, made safe for a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Escape what is not printable, such as a file's name may hold; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)

"""Values as a sentence has them."""

from collections.abc import Sequence


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def points(share: float, spec: str = ".1f") -> str:
    """In per cent, or the difference of two shares in points."""
    return format(100 * share, spec)

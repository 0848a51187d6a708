"""Names and lists inside error texts, bounded: a caller's name can be megabytes long, and the text travels back in a
header.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

MAX_QUOTED_CHARS = 80
"""Of a name that somebody sent."""
MAX_LISTED = 20
"""Names in one text; who needs all of them asks RepositoryIndex."""


def quoted(name: str) -> str:
    """'name', escaped, cut when it is absurdly long."""
    return repr(name if len(name) <= MAX_QUOTED_CHARS else name[: MAX_QUOTED_CHARS - 3] + "...")


def listed(texts: Iterable[str], separator: str = ", ") -> str:
    """`a, b and 7 more`; `none` when there are none."""
    rest = iter(texts)
    shown = separator.join(islice(rest, MAX_LISTED))
    n_left = sum(1 for _ in rest)
    return f"{shown} and {n_left} more" if n_left else shown or "none"

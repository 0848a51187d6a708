"""What differs between two routes, one line for each place, as an operator would name it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.config.files import field_name

Path = tuple[int | str, ...]

_NOTHING = object()


def diff(before: Any, after: Any) -> list[dict[str, Any]]:
    """[{"path", "before", "after"}], in the order of the documents; what is not there is null."""
    return [
        {"path": field_name(path), "before": _plain(old), "after": _plain(new)}
        for path, old, new in _walk((), before, after)
    ]


def _walk(path: Path, before: Any, after: Any) -> Iterator[tuple[Path, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from _walk((*path, key), before.get(key, _NOTHING), after.get(key, _NOTHING))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            yield from _walk(
                (*path, index), *(each[index] if index < len(each) else _NOTHING for each in (before, after))
            )
    elif before is _NOTHING or after is _NOTHING or before != after:
        yield path, before, after


def _plain(value: Any) -> Any:
    return None if value is _NOTHING else value

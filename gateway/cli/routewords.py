"""A route as people type it: `1=95 2=5 --shadow 2=50 --sticky header:x-user`, laid over the one in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.errors import ConfigError

NONE = "none"


def changed(
    current: dict[str, Any],
    versions: Sequence[str] = (),
    shadows: Sequence[str] = (),
    sticky: str | None = None,
    fallback: str | None = None,
    pinned: str | None = None,
    keep: str | None = None,
) -> dict[str, Any]:
    """`current` with what is named; the rest of it stays. ConfigError names the flag."""
    document = dict(current)
    if versions:
        document["versions"] = _split(versions)
        if not shadows:
            _put(document, "shadows", _still_shadows(document))
    if shadows:
        _put(document, "shadows", None if list(shadows) == [NONE] else [_shadow(word, current) for word in shadows])
    if sticky is not None:
        _put(document, "sticky", None if sticky == NONE else _sticky(sticky, current))
    if fallback is not None:
        _put(document, "fallback", None if fallback == NONE else {**current.get("fallback", {}), "version": fallback})
    if pinned is not None:
        document["pinned"] = pinned
    if keep is not None:
        _put(document, "keep", None if keep == NONE else keep)
    return document


def _still_shadows(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A version that now answers everything has nothing left to shadow: who switches to it means to end that, too."""
    shadows: list[dict[str, Any]] = document.get("shadows", [])
    alone = next(iter(document["versions"])) if len(document["versions"]) == 1 and not document.get("rules") else None
    return [shadow for shadow in shadows if shadow.get("version") != alone] or None


def _put(document: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        document.pop(name, None)
    else:
        document[name] = value


def _split(words: Sequence[str]) -> dict[str, float]:
    """["1=95", "2=5"], or ["2"] for all of it."""
    if len(words) == 1 and "=" not in words[0]:
        return {words[0]: 100}
    split: dict[str, float] = {}
    for word in words:
        version, equals, percent = word.partition("=")
        if not (version and equals):
            raise ConfigError(
                f"VERSION=PERCENT: got {word!r}, expected such as 1=95, or one version alone for all of it"
            )
        if version in split:
            raise ConfigError(f"VERSION=PERCENT: version {version} stands there twice")
        split[version] = _percent("VERSION=PERCENT", word, percent)
    return split


def _shadow(word: str, current: dict[str, Any]) -> dict[str, Any]:
    """A shadow that is there already keeps its bounds."""
    version, equals, percent = word.partition("=")
    if not version or version == NONE:
        raise ConfigError(f"--shadow: got {word!r}, expected VERSION, VERSION=PERCENT, or {NONE} alone")
    known: dict[str, Any] = next((each for each in current.get("shadows", []) if each.get("version") == version), {})
    return {**known, "version": version, "percent": _percent("--shadow", word, percent) if equals else 100}


def _sticky(word: str, current: dict[str, Any]) -> dict[str, Any]:
    kind, colon, name = word.partition(":")
    if kind not in ("header", "parameter") or not (colon and name):
        raise ConfigError(f"--sticky: got {word!r}, expected header:NAME, parameter:NAME or {NONE}")
    salt = current.get("sticky", {}).get("salt")
    return {kind: name, **({"salt": salt} if salt else {})}


def _percent(flag: str, word: str, text: str) -> float:
    """Whole numbers stay whole: a person reads them again."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise ConfigError(
            f"{flag}: got {word!r}, expected a percentage from 0 to 100 such as {word.partition('=')[0]}=5"
        )
    return int(number) if number == int(number) else number

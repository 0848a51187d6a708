"""The routes that a rollout publishes: the one that was there before, with two arms in its default split. Pure.

Rules, fallback and whatever else an operator wrote stay as they are; only the default split, the shadows of the
candidate and the sticky salt are the rollout's, and the salt only while it lasts.
"""

from __future__ import annotations

from typing import Any

from gateway.control.evidence import CANDIDATE, STABLE
from gateway.rollout.plan import Plan
from gateway.routing.route import SHARE_UNIT, Route, RouteError, Shadow, Share, Sticky, parse, shares_of


def stable_of(route: Route) -> str | None:
    """The version that answers the whole default split; None: several do."""
    shares = [share for share in shares_of(route.versions) if share.units]
    return shares[0].version if len(shares) == 1 else None


def faults(route: Route, stable: str, candidate: str) -> list[tuple[str, str]]:
    """Why this route cannot be the one before a rollout: (path, text)."""
    found = []
    if stable_of(route) != stable:
        shares = ", ".join(f"{share.version}={share.weight:g}" for share in shares_of(route.versions))
        found.append(("versions", f"got {shares}, expected version {stable} alone: it is what the candidate replaces"))
    for index, rule in enumerate(route.rules):
        if any(share.version == candidate for share in shares_of(rule.versions)):
            text = f"version {candidate} answers by the rule {route.rule_name(index)} already, expected no request yet"
            found.append((f"rules[{index}].versions", text))
    if route.fallback and route.fallback.version == candidate:
        found.append(("fallback.version", f"version {candidate} is the fallback, expected another: it is on trial"))
    return found


def staged(base: dict[str, Any], plan: Plan, name: str, stable: str, units: int, shadow_units: int) -> dict[str, Any]:
    """With the candidate at this weight and with so many copies. Weights of 0 keep both versions loaded."""
    route = parse(base)
    shares = (
        Share(version=stable, weight=_percent(SHARE_UNIT - units), arm=STABLE),
        Share(version=plan.candidate, weight=_percent(units), arm=CANDIDATE),
    )
    others = tuple(shadow for shadow in route.shadows if shadow.version not in (plan.candidate, stable))
    own = (Shadow(version=plan.candidate, percent=_percent(shadow_units)),) if shadow_units else ()
    sticky = plan.sticky or route.sticky
    if sticky is not None and sticky.salt is None:  # another one in each rollout: not always the same are tried upon
        sticky = Sticky.model_validate({**sticky.model_dump(exclude_none=True), "salt": name})
    return route.model_copy(update={"versions": shares, "shadows": (*own, *others), "sticky": sticky}).document()


def promoted(base: dict[str, Any], candidate: str) -> dict[str, Any]:
    """With the candidate in stable's place."""
    route = parse(base)
    shadows = tuple(shadow for shadow in route.shadows if shadow.version != candidate)
    return route.model_copy(update={"versions": {candidate: 100}, "shadows": shadows}).document()


def withdrawn(current: dict[str, Any], stable: str, candidate: str) -> dict[str, Any]:
    """Somebody else's route without the candidate: its share goes to stable, and no rule leads to it."""
    route = parse(current)
    rules = tuple(
        rule.model_copy(update={"versions": _without(shares_of(rule.versions), stable, candidate)})
        for rule in route.rules
    )
    shadows = tuple(shadow for shadow in route.shadows if shadow.version != candidate)
    fallback = route.fallback if route.fallback and route.fallback.version != candidate else None
    versions = _without(shares_of(route.versions), stable, candidate)
    changes = {"versions": versions, "rules": rules, "shadows": shadows, "fallback": fallback}
    return route.model_copy(update=changes).document()


def weight_of(document: dict[str, Any], candidate: str) -> int:
    """The candidate's share of the default split, of SHARE_UNIT."""
    try:
        route = parse(document)
    except RouteError:
        return 0
    return sum(share.units for share in shares_of(route.versions) if share.version == candidate)


def names(document: dict[str, Any], version: str) -> bool:
    try:
        return version in parse(document).versions_used()
    except RouteError:
        return False


def _without(shares: tuple[Share, ...], stable: str, candidate: str) -> tuple[Share, ...] | dict[str, int | float]:
    if all(share.version != candidate for share in shares):
        return shares
    freed = sum(share.units for share in shares if share.version == candidate)
    kept = [share for share in shares if share.version not in (stable, candidate)]
    own = sum(share.units for share in shares if share.version == stable)
    if not kept:
        return {stable: 100}
    names = {share.arm for share in kept}
    arm = next((share.arm for share in shares if share.version == stable), STABLE if STABLE not in names else None)
    return (Share(version=stable, weight=_percent(own + freed), arm=arm), *kept)


def _percent(units: int) -> int | float:
    exact = units * 100 / SHARE_UNIT
    return int(exact) if exact == int(exact) else exact

"""A decision in words and numbers: why it was taken, for who asks years later.

Everything is taken from what was stored with it, so that an explanation needs no data that may be gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.evidence import sentence
from gateway.evidence.verdict import Verdict
from gateway.routing.route import SHARE_UNIT

_WORDS = {
    "loaded": "loaded, now it is tried before traffic",
    "refuse": "refused before any traffic",
    "start_shadow": "to the shadow",
    "start_steps": "to its first requests",
    "next_step": "to the next step",
    "start_baking": "to the bake",
    "promote": "promoted",
    "roll_back": "taken back",
    "supersede": "taken back, another rollout came",
    "drained": "taken back, its last request has ended",
    "cleared": "out of the way of another rollout",
    "give_up": "stuck, an operator is needed",
}


def explain(decision: Mapping[str, Any]) -> str:
    """Of a decision's document (`Decision.as_dict`): a paragraph, then a line for each guardrail."""
    return "\n".join(_lines(decision))


def rows(decision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each guardrail, for a table: name, action, outcome, evidence and what it needs, effect, interval, n."""
    found = []
    for guardrail in decision["guardrails"]:
        verdict = guardrail["rollback"]
        promote = guardrail["promote"]
        found.append(
            {
                "name": guardrail["name"],
                "kind": guardrail["kind"],
                "action": guardrail["action"],
                "required": guardrail["required"],
                "outcome": _outcome(guardrail),
                "n": verdict["n"] if verdict else 0,
                "effect": verdict["effect"] if verdict else None,
                "interval": verdict["interval"] if verdict else None,
                "log_e": verdict["log_e"] if verdict else None,
                "log_threshold": verdict["log_threshold"] if verdict else None,
                "promote_log_e": promote["log_e"] if promote else None,
                "promote_log_threshold": promote["log_threshold"] if promote else None,
                "sentence": verdict["sentence"] if verdict else "",
                "promote_sentence": promote["sentence"] if promote else "",
            }
        )
    return found


def headline(decision: Mapping[str, Any]) -> str:
    """In one line: what happened, or what is waited for."""
    cursor = decision["cursor"]
    share = f"{cursor['units'] * 100 / SHARE_UNIT:g} %"
    first = decision["reasons"][0] if decision["reasons"] else ""
    if decision["event"]:
        return f"{_WORDS[decision['event']]}: {first}"
    held = ", ".join(str(hold) for hold, _ in cursor["holds"])
    where = f"{cursor['stage']} at {share}" + (f", held ({held})" if held else "")
    return f"{where}: {first}" if first else where


def _lines(decision: Mapping[str, Any]) -> Iterator[str]:
    yield headline(decision)
    yield from (f"  also: {reason}" for reason in decision["reasons"][1:])
    if decision["health"] != "unknown":
        yield f"  the candidate looks {decision['health'].replace('_', ' ')}"
    for row in rows(decision):
        yield f"  {row['name']} ({row['action']}): {row['outcome']}; {row['sentence'] or 'not judged'}"
        if row["log_e"] is not None:
            yield f"    worse than tolerated? {_evidence(row['log_e'], row['log_threshold'])}"
        if row["promote_log_e"] is not None:
            is_needed = "needed to go on" if row["required"] else "not needed to go on"
            good = _evidence(row["promote_log_e"], row["promote_log_threshold"])
            yield f"    good enough? {good}, {is_needed}: {row['promote_sentence']}"
    for name, title in (("split", "split"), ("combined", "all together, back"), ("promotion", "all together, on")):
        if decision[name]:
            verdict = Verdict.from_dict(decision[name])
            yield f"  {title}: {verdict.sentence}"


def _outcome(guardrail: Mapping[str, Any]) -> str:
    if guardrail["fault"]:
        return "fault"
    for verdict, decisive in ((guardrail["rollback"], "worse"), (guardrail["promote"], "ok")):
        if verdict and verdict["outcome"] == decisive:
            return decisive
    return guardrail["rollback"]["outcome"] if guardrail["rollback"] else "unknown"


def _evidence(log_e: float | str, log_threshold: float | str) -> str:
    """Evidence as a number of people's size, beside the one that is needed."""
    got, needed = float(log_e), float(log_threshold)
    if got > 690.0:
        return f"evidence above 1e300 of the {sentence.number(math.exp(needed))} needed"
    return f"evidence {sentence.number(math.exp(max(got, -690.0)))} of the {sentence.number(math.exp(needed))} needed"

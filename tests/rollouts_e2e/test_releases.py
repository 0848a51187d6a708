"""Rollouts end to end: real models under real load in a gateway with two workers, several releases at once. Who is
better is promoted, who is worse is taken back, each for what is wrong with it, and what it cost is told. Every kind of
guardrail has a release here that it alone can tell from a good one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demo.rollouts.follow import Stream
from gateway.cli import app
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.releases import Buyers, Release, Reporters, store_releases

pytestmark = pytest.mark.timeout(700)  # the fixture waits for eleven rollouts, on a machine that may be busy

RATE = 300.0
SLOW_RATE = 100.0
"""Of those that are found by few requests: the machine is busy enough."""
PATIENCE_S = 300.0
PLAN = {
    "candidate": 2,
    "strategy": "canary",
    "steps": [{"weight": 20, "min_time": "1s", "min_requests": 50}, {"weight": 50, "min_time": "1s"}],
    "bake": {"time": "1s", "control": 20, "min_requests": 50},
    "risk": {"rollback": 1e-6},  # by default one good release in a hundred is taken back
    "acceptance": {"latency": 100},
}
BOUGHT = {"kind": "metric", "centre": 0.5, "tolerated": 0.05, "required": False}
COST = {"kind": "cost", "action": "rollback"}
REFUSED = {"kind": "fairness", "event": "class 1", "groups": ["women", "men"], "action": "rollback"}
RIGHT = {"kind": "correctness", "loss": 0.1, "required": True}
EASY = {"latency": "off", "outputs": "off", "errors": {"negligible": 0.05}}
"""What the others look at is told apart elsewhere."""
FOR_EVER = {"steps": [{"weight": 50, "min_requests": 10**9}], "shadow": {"percent": 100, "min_pairs": 10**9}}
"""It goes nowhere by itself: whatever becomes of it, a guardrail did it."""
SHADOWED = {"strategy": ["shadow", "canary"]}
OVER = ("promoted", "rolled_back", "refused", "superseded", "needs_operator")


@pytest.fixture(scope="module")
def stage(released_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with two versions each, rows/ with the traffic."""
    folder = tmp_path_factory.mktemp("releases") / "stage"
    shutil.copytree(released_models, folder)
    store_releases(folder / "models", folder / "rows")
    return folder


@pytest.fixture(scope="module")
def served(stage: Path, serve_for_module: Serve) -> GatewayProcess:
    """Version 1 of each model; the others lie beside it a moment later, as releases do."""
    repository = stage / "repository"
    for model in (stage / "models").iterdir():
        shutil.copytree(model, repository / model.name, ignore=shutil.ignore_patterns("2"))
    gateway = serve_for_module(repository, "--workers", "2", "--state", str(stage / "state"))
    gateway.wait_routed(*(model.name for model in repository.iterdir()))
    for model in (stage / "models").iterdir():
        shutil.copytree(model / "2", repository / model.name / "2")
    return gateway


@pytest.fixture(scope="module")
def releases(stage: Path, served: GatewayProcess) -> dict[str, Release]:
    """All of them, begun together, when each is over."""
    found = {
        each.model: each
        for each in (
            Release("postcodes"),
            Release("wine_lab"),
            Release("screening"),
            Release("slow", {"steps": [{"weight": 20, "min_requests": 10**9}]}),
            Release("root"),
            Release("shop", {"guardrails": {"bought": BOUGHT}}),
            Release("dear", {**FOR_EVER, "guardrails": {**EASY, "cost": COST}}),
            Release("mute", {**FOR_EVER, "guardrails": EASY}),
            Release("loans", {**FOR_EVER, "guardrails": {**EASY, "fair": REFUSED}}),
            Release("triage", {**FOR_EVER, **SHADOWED, "guardrails": {**EASY, "disagreement": "off", "right": RIGHT}}),
            Release(
                "sound",
                {
                    **SHADOWED,
                    "shadow": {"percent": 100, "min_time": "1s", "min_pairs": 50},
                    "steps": [{"weight": 50, "min_time": "1s", "min_requests": 50}],
                    "guardrails": {
                        "errors": EASY["errors"],
                        "latency": "off",
                        "cost": COST,
                        "fair": REFUSED,
                        "right": RIGHT,
                    },
                },
            ),
        )
    }
    control = served.control()
    with ExitStack() as stack:
        streams = {
            model: _stream(stack, stage, served, model, SLOW_RATE if model in ("slow", "dear", "mute") else RATE)
            for model in found
            if model not in (*Buyers.MODELS, *Reporters.MODELS)
        }
        eventually(lambda: all(stream.is_ready for stream in streams.values()), "the clients are there", PATIENCE_S)
        for stream in streams.values():
            stream.begin()
        callers = [stack.enter_context(kind(served)) for kind in (Buyers, Reporters)]
        eventually(lambda: all(stream.n > 3 * SLOW_RATE for stream in streams.values()), "stable is known", PATIENCE_S)
        eventually(lambda: all(n > 150 for each in callers for n in each.n.values()), "callers are known", PATIENCE_S)
        for each in found.values():
            each.rollout = _start(control, each)
        for each in found.values():
            each.rollout = _over(control, each.rollout["id"])
        print({type(each).__name__: (each.n, each.n_again) for each in callers})
    for each in found.values():
        each.decisions = control.get(f"/v1/rollouts/{each.rollout['id']}/decisions?limit=1000")["decisions"]
        each.seen = streams[each.model].last if each.model in streams else {}
        each.rollout = control.get(f"/v1/rollouts/{each.rollout['id']}")
        print(
            f"{each.model}: {each.rollout['stage']}, {each.rollout['harmed_requests']} requests harmed of"
            f" {each.rollout['status']['answered']}; {each.rollout['reason']}"
        )
    return found


def _stream(stack: ExitStack, stage: Path, served: GatewayProcess, model: str, rate: float) -> Stream:
    stream = Stream(model, stage / "rows" / f"{model}.npz", served.port, rate)
    stack.callback(stream.close)
    return stream


def _start(control: ControlClient, release: Release) -> dict[str, Any]:
    body = {"plan": {"model": release.model, **PLAN, **release.plan}, "reason": "a test"}
    status, answer = control.ask("POST", "/v1/rollouts", body)
    assert status == 201, answer
    found: dict[str, Any] = answer
    return found


def _over(control: ControlClient, rollout: str) -> dict[str, Any]:
    def over() -> Any:
        now = control.try_get(f"/v1/rollouts/{rollout}")
        return now and now["stage"] in OVER and now

    try:
        found: dict[str, Any] = eventually(over, f"rollout {rollout} is over", PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {control.try_get(f'/v1/rollouts/{rollout}')}") from None
    return found


def _weights(release: Release) -> list[float]:
    """One after the other; where stable became faster or slower, the same weight has two epochs."""
    return [weight for weight, _ in groupby(each["weight_percent"] for each in release.rollout["stages"])]


# --- what became of each


def test_a_better_release_is_promoted_step_by_step_without_a_failed_request(releases: dict[str, Release]) -> None:
    good = releases["postcodes"]
    assert good.rollout["stage"] == "promoted", good.rollout["reason"]
    assert _weights(good) == [20.0, 50.0, 80.0, 100.0]
    assert (good.rollout["harmed_requests"], good.seen["failed"]) == (0, 0)
    assert good.seen["wrong"]["2"] / good.seen["answered"]["2"] < good.seen["wrong"]["1"] / good.seen["answered"]["1"]


@pytest.mark.parametrize(
    ("model", "cause", "words"),
    [
        ("wine_lab", "guardrail", "errors: candidate fails"),
        ("screening", "guardrail", "outputs: "),
        ("slow", "guardrail", "latency: "),
        ("root", None, "broken"),
        ("shop", "guardrail", "bought: "),
        ("dear", "guardrail", "cost: candidate's execution time per row in us is "),
        ("mute", "fact", " different requests "),
        ("loans", "guardrail", "fair: "),
        ("triage", "guardrail", "right: "),
    ],
)
def test_a_worse_release_is_taken_back_for_what_is_wrong_with_it(
    releases: dict[str, Release], served: GatewayProcess, model: str, cause: str | None, words: str
) -> None:
    bad = releases[model]
    assert bad.rollout["stage"] == "rolled_back", bad.rollout
    assert words in bad.rollout["reason"]
    assert cause in (None, bad.rollout["cause"])
    assert _weights(bad)[-1] == 0.0
    told = CliRunner().invoke(app, ["rollout", "explain", bad.rollout["id"], "--server", served.control_url]).output
    assert f"taken back: {bad.rollout['reason'].split(';')[0]}" in told


def test_a_sound_release_is_promoted_past_the_guardrails_that_took_those_beside_it_back(
    releases: dict[str, Release], served: GatewayProcess
) -> None:
    sound = releases["sound"]
    assert sound.rollout["stage"] == "promoted", sound.rollout
    explained = served.control().get(f"/v1/rollouts/{sound.rollout['id']}/explain")["decisions"]
    promoted = next(each for each in explained if each["event"] == "promote")
    judged = {row["name"]: row for row in promoted["rows"]}
    assert judged.keys() == {"errors", "broken", "outputs", "disagreement", "cost", "fair", "right"}
    assert all(row["n"] and row["outcome"] != "worse" for row in judged.values()), judged


def test_every_failure_that_callers_met_is_reported_as_harm(releases: dict[str, Release]) -> None:
    errors, broken = releases["wine_lab"], releases["root"]
    assert errors.rollout["harmed_requests"] == errors.seen["failed"] > 0
    assert broken.rollout["harmed_requests"] == broken.seen["wrong"]["2"] > 0
    for model in ("slow", "screening"):
        assert releases[model].seen["failed"] == 0


def test_callers_get_stable_alone_again_and_the_files_are_blocked(
    releases: dict[str, Release], served: GatewayProcess
) -> None:
    control = served.control()
    bad = releases.keys() - {"postcodes", "sound"}
    for model in bad:
        route = control.get(f"/v1/routes/{model}")["route"]
        assert {str(version): share for version, share in _shares(route).items() if share} == {"1": 100.0}
    blocked = {each["model"] for each in control.get("/v1/blocked")["blocked"]}
    assert blocked == bad
    status, answer = control.ask("POST", "/v1/rollouts", {"plan": {"model": "wine_lab", **PLAN}})
    assert status == 409, answer
    assert "taken back" in answer["error"]


def _shares(route: dict[str, Any]) -> dict[str, float]:
    versions = route["versions"]
    if isinstance(versions, dict):
        return {str(version): float(share) for version, share in versions.items()}
    return {str(each["version"]): float(each["weight"]) for each in versions}


def test_each_decision_is_in_the_audit_log_and_comes_out_the_same_again(
    releases: dict[str, Release], served: GatewayProcess
) -> None:
    control = served.control()
    for each in releases.values():
        entries = control.get(f"/v1/audit?limit=1000&model={each.model}")["entries"]
        logged = [entry for entry in entries if (entry["after"] or {}).get("decision")]
        assert len(logged) == len(each.decisions) > 0
        replayed = control.get(f"/v1/rollouts/{each.rollout['id']}/replay")
        assert replayed["same"], replayed["differences"]
        assert replayed["decisions"] == len(each.decisions)
    assert control.get("/v1/audit/verify")["ok"]


def test_a_rollback_under_full_load_fails_no_request(
    releases: dict[str, Release], stage: Path, served: GatewayProcess
) -> None:
    """Of a release that is fine: whatever fails is the rollback's doing."""
    control = served.control()
    shutil.copytree(stage / "models" / "screening" / "1", stage / "repository" / "screening" / "3")
    with ExitStack() as stack:
        stream = _stream(stack, stage, served, "screening", 0.0)
        stream.begin()
        eventually(lambda: stream.n, "requests are answered", PATIENCE_S)
        plan = {"candidate": 3, "steps": [{"weight": 50, "max_time": "1h"}]}
        rollout = _start(control, Release("screening", plan))["id"]
        eventually(lambda: stream.last["answered"].get("3", 0) > 1000, "it has its share", PATIENCE_S)
        status, answer = control.ask("POST", f"/v1/rollouts/{rollout}/abort", {"reason": "a test"})
        assert status == 200, answer
        assert _over(control, rollout)["stage"] == "rolled_back"
        before = stream.last["answered"]["1"]
        eventually(lambda: stream.last["answered"]["1"] > before + 1000, "stable goes on", PATIENCE_S)
    assert stream.last["failed"] == 0
    assert stream.last["answered"].keys() == {"1", "3"}


def test_a_picture_is_drawn(releases: dict[str, Release], served: GatewayProcess, tmp_path: Path) -> None:
    words = ["rollout", "plot", "postcodes", str(tmp_path / "postcodes.svg"), "--server", served.control_url]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "<svg" in (tmp_path / "postcodes.svg").read_text()[:2000]


@pytest.fixture(scope="module", autouse=True)
def _quiet_end(served: GatewayProcess) -> Iterator[None]:
    """What the gateway logged must not hold an accident."""
    yield
    assert not served.events("duty failed"), served.log

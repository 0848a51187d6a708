"""Rollouts end to end: real models under real load in a gateway with two workers, several releases at once. Who is
better is promoted, who is worse is taken back, each for what is wrong with it, and what it cost is told.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from typer.testing import CliRunner

from demo.rollouts.follow import Stream
from gateway.cli import app
from gateway.registry import golden
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.controlclient import ControlClient
from tests.support.gatewayprocess import GatewayProcess
from tests.support.onnxmodels import build, busy, identity, node, store, tensor

pytestmark = pytest.mark.timeout(700)  # the fixture waits for six rollouts, on a machine that may be busy

RATE = 300.0
PATIENCE_S = 300.0
PLAN = {
    "candidate": 2,
    "strategy": "canary",
    "steps": [{"weight": 20, "min_time": "1s", "min_requests": 50}, {"weight": 50, "min_time": "1s"}],
    "bake": {"time": "1s", "control": 20, "min_requests": 50},
    "risk": {
        "rollback": 1e-6
    },  # 1 % by default: so often the good one would be taken back, or a bad one for another cause
    "acceptance": {"latency": 100},
}
BOUGHT = {"kind": "metric", "centre": 0.5, "tolerated": 0.05, "required": False}
OVER = ("promoted", "rolled_back", "refused", "superseded", "needs_operator")


@dataclass
class Release:
    """One model's. `rollout` is what the control plane says of it in the end."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    """By the clients: answered and wrong by version, failed."""


class Buyers:
    """Ask `shop` for offers, one after the other, and report by the answer's token whether they bought."""

    def __init__(self, served: GatewayProcess, chance: dict[str, float]) -> None:
        self._served, self._chance = served, chance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.n = 0
        self.fault = ""

    def __enter__(self) -> Buyers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.fault

    def _run(self) -> None:
        rng = np.random.default_rng(11)
        control = self._served.control()
        x = triton.InferInput("x", [1, 4], "FP32")
        with triton.InferenceServerClient(self._served.grpc_url) as client:
            while not self._stop.is_set():
                reports = []
                for _ in range(40):
                    x.set_data_from_numpy(rng.random((1, 4), np.float32))
                    answer = client.infer("shop", [x]).get_response()
                    token = answer.parameters["gateway_request"].string_param
                    bought = int(rng.random() < self._chance[answer.model_version])
                    reports.append({"request": token, "values": {"bought": bought}})
                status, said = 503, None
                while status == 503 and not self._stop.is_set():  # a store that is busy: the same ones again
                    status, said = control.ask("POST", "/v1/feedback", {"reports": reports})
                if status not in (200, 503):
                    self.fault = str(said)
                self.n += len(reports)


def _rows(path: Path, values: np.ndarray[Any, Any]) -> None:
    np.savez(path, **{"input:x": values, "truth": np.full(len(values), "finite")})


def _release_of_made_up_models(root: Path, rows: Path) -> None:
    """`slow` becomes ten times as slow; `root` gives NaN to negative numbers, which are a fiftieth; in `shop` nothing
    but what buyers do tells the versions apart.
    """
    rng = np.random.default_rng(5)
    positive = rng.uniform(0.1, 1.0, (100, 4)).astype(np.float32)
    for version, turns in ((1, 30), (2, 300)):
        store(root, "slow", version, busy(turns))
    _rows(rows / "slow.npz", positive)
    store(root, "root", 1, identity())
    for version in (1, 2):
        store(root, "shop", version, identity(), "feedback: true\n")
    square = build([node("Sqrt", ["x"], ["root"]), node("Mul", ["root", "root"], ["y"])], [tensor("x")], [tensor("y")])
    golden.save(store(root, "root", 2, square) / "golden.npz", {"x": positive[:8]}, {"y": positive[:8]})
    mixed = positive.copy()
    mixed[::50] *= -1.0
    _rows(rows / "root.npz", mixed)


@pytest.fixture(scope="module")
def stage(released_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with two versions each, rows/ with the traffic."""
    folder = tmp_path_factory.mktemp("releases") / "stage"
    shutil.copytree(released_models, folder)
    _release_of_made_up_models(folder / "models", folder / "rows")
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
            Release("slow"),
            Release("root"),
            Release("shop", {"guardrails": {"bought": BOUGHT}}),
        )
    }
    control = served.control()
    with ExitStack() as stack:
        streams = {model: _stream(stack, stage, served, model, RATE) for model in found if model != "shop"}
        eventually(lambda: all(stream.is_ready for stream in streams.values()), "the clients are there", PATIENCE_S)
        for stream in streams.values():
            stream.begin()
        buyers = stack.enter_context(Buyers(served, {"1": 0.5, "2": 0.2}))
        eventually(lambda: all(stream.n > 3 * RATE for stream in streams.values()), "stable is known", PATIENCE_S)
        eventually(lambda: buyers.n > 150, "buyers are known", PATIENCE_S)
        for each in found.values():
            each.rollout = _start(control, each)
        for each in found.values():
            each.rollout = _over(control, each.rollout["id"])
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
    return [each["weight_percent"] for each in release.rollout["stages"]]


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
    ],
)
def test_a_worse_release_is_taken_back_for_what_is_wrong_with_it(
    releases: dict[str, Release], model: str, cause: str | None, words: str
) -> None:
    bad = releases[model]
    assert bad.rollout["stage"] == "rolled_back", bad.rollout
    assert words in bad.rollout["reason"]
    assert cause in (None, bad.rollout["cause"])
    assert _weights(bad)[-1] == 0.0


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
    bad = {"wine_lab", "screening", "slow", "root", "shop"}
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

"""Releases made for one fault each, and callers who tell by feedback how it turned out for them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from gateway.registry import golden
from tests.support.gatewayprocess import GatewayProcess
from tests.support.onnxmodels import build, busy, identity, node, store, tensor

REPORTED = "feedback: true\n"
REFUSED_BELOW = 0.2
CHANCE = {"1": 0.5, "2": 0.2}
"""That a visitor of `shop` buys, by version."""
STRICTER = 0.3
"""By so much `loans` asks more of women in its second version."""


@dataclass
class Release:
    """One model's. `rollout` is what the control plane says of it in the end."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    """By the clients: answered and wrong by version, failed."""


def store_releases(root: Path, rows: Path) -> None:
    """Two versions each, the second with a fault of its own:

    slow    takes 8 ms longer
    dear    takes twice the work
    root    gives NaN to negative numbers, which are a fiftieth
    mute    gives everybody the same answer
    shop    nothing but what buyers do
    loans   refuses more women, and as many men
    triage  never says the last of four classes, which is right for a quarter
    sound   none
    """
    rng = np.random.default_rng(5)
    positive = rng.uniform(0.1, 1.0, (100, 4)).astype(np.float32)
    for version, turns in ((1, 30), (2, 2000)):
        store(root, "slow", version, busy(turns))
    for version, turns in ((1, 100), (2, 200)):
        store(root, "dear", version, busy(turns))
    store(root, "root", 1, identity())
    square = build([node("Sqrt", ["x"], ["root"]), node("Mul", ["root", "root"], ["y"])], [tensor("x")], [tensor("y")])
    golden.save(store(root, "root", 2, square) / "golden.npz", {"x": positive[:8]}, {"y": positive[:8]})
    mixed = positive.copy()
    mixed[::50] *= -1.0
    for version, factor in ((1, 1.0), (2, 0.0)):
        store(root, "mute", version, scaled(factor))
    for model, values in (("slow", positive), ("dear", positive), ("root", mixed), ("mute", positive)):
        np.savez(rows / f"{model}.npz", **{"input:x": values, "truth": np.full(len(values), "finite")})
    for version in (1, 2):
        store(root, "shop", version, identity(), REPORTED)
    for version, stricter in ((1, 0.0), (2, STRICTER)):
        store(root, "loans", version, refusing(stricter), REPORTED)
    for version, weights in ((1, (1, 1, 1, 1)), (2, (1, 1, 1, 0))):
        store(root, "triage", version, largest(weights), REPORTED)
    for version, weights in ((1, (1, 1, 1, 1)), (2, (2, 2, 2, 2))):
        store(root, "sound", version, largest(weights), REPORTED)


def scaled(factor: float) -> bytes:
    """y = factor x."""
    return build(
        [node("Mul", ["x", "factor"], ["y"])], [tensor("x")], [tensor("y")], {"factor": np.array(factor, np.float32)}
    )


def refusing(stricter: float) -> bytes:
    """y = 1, refused, when the score x[1] is too low; more is asked of those with x[0] = 1."""
    return build(
        [
            node("MatMul", ["x", "weights"], ["score"]),
            node("Less", ["score", "least"], ["is_refused"]),
            node("Cast", ["is_refused"], ["y"], to=7),
        ],
        [tensor("x")],
        [tensor("y", "INT64", ("N", 1))],
        {
            "weights": np.array([[-stricter], [1.0], [0.0], [0.0]], np.float32),
            "least": np.array(REFUSED_BELOW, np.float32),
        },
    )


def largest(weights: tuple[float, ...]) -> bytes:
    """y = the place of the largest of the four, each weighed."""
    return build(
        [node("Mul", ["x", "weights"], ["weighed"]), node("ArgMax", ["weighed"], ["y"], axis=1, keepdims=1)],
        [tensor("x")],
        [tensor("y", "INT64", ("N", 1))],
        {"weights": np.array(weights, np.float32)},
    )


class Callers(ABC):
    """One after the other they ask, and report by the answer's token. A context: they ask while it is open."""

    MODELS: tuple[str, ...]

    def __init__(self, served: GatewayProcess) -> None:
        self._served = served
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._rng = np.random.default_rng(11)
        self.n = dict.fromkeys(self.MODELS, 0)
        self.n_again = 0
        self.fault = ""

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self.fault, self.fault

    def _run(self) -> None:
        control = self._served.control()
        with triton.InferenceServerClient(self._served.grpc_url) as client:
            while not self._stop.is_set():
                reports = [report for model in self.MODELS for report in self._asked(client, model)]
                status = 503  # the store could not be written: to be sent again, what is kept already counts once
                while status == 503 and not self._stop.is_set():
                    status, said = control.ask("POST", "/v1/feedback", {"reports": reports})
                    self.n_again += status == 503
                    if status not in (200, 503):
                        self.fault = f"{status}: {said}"

    def _asked(self, client: Any, model: str) -> Iterator[dict[str, Any]]:
        given = triton.InferInput("x", [1, 4], "FP32")
        for _ in range(20):
            x = self._rng.random((1, 4), np.float32)
            yield self.one(client, model, given, x)
            self.n[model] += 1

    def one(self, client: Any, model: str, given: Any, x: np.ndarray[Any, Any]) -> dict[str, Any]:
        x = self.changed(model, x)
        given.set_data_from_numpy(x)
        answer = client.infer(model, [given]).get_response()
        token = answer.parameters["gateway_request"].string_param
        return {"request": token, **self.told(model, x, answer.model_version)}

    def changed(self, model: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What is asked instead."""
        return x

    @abstractmethod
    def told(self, model: str, x: np.ndarray[Any, Any], version: str) -> dict[str, Any]: ...


class Buyers(Callers):
    """Of `shop`: whether they bought what they were offered depends on nothing but the version."""

    MODELS = ("shop",)

    def told(self, model: str, x: np.ndarray[Any, Any], version: str) -> dict[str, Any]:
        return {"values": {"bought": int(self._rng.random() < CHANCE[version])}}


class Reporters(Callers):
    """Tell what was right, and of which group they are."""

    MODELS = ("loans", "triage", "sound")

    def changed(self, model: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if model == "loans":
            x[0, 0] = round(float(x[0, 0]))
        return x

    def told(self, model: str, x: np.ndarray[Any, Any], version: str) -> dict[str, Any]:
        group = "women" if x[0, 0] >= 0.5 else "men"
        label = int(x[0, 1] < REFUSED_BELOW) if model == "loans" else int(np.argmax(x))
        return {"label": label, "groups": [group]}

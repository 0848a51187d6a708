"""A candidate is tried in a worker: real models, and through the store with a gateway that serves meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.backends import onnx
from gateway.cli import app
from gateway.config.model import ModelConfig
from gateway.control import acceptance
from gateway.registry import golden
from gateway.rollout.plan import Plan, parse
from gateway.rollout.trial import RESULT_KIND, Order, Result, Terms
from gateway.serving.acceptance import Try
from gateway.store import Report, Store
from tests.conftest import Serve
from tests.support.conditions import eventually
from tests.support.control import put, times
from tests.support.onnxmodels import build, busy, lookup, node, store, tensor

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
TERMS = Terms()


def held(folder: Path) -> Any:
    """As much of one as a trial reads."""
    backend = onnx.load(folder, ModelConfig())
    return SimpleNamespace(backend=backend, source=SimpleNamespace(path=folder, config=ModelConfig()))


def tried(root: Path, stable: bytes, candidate: bytes, terms: Terms = TERMS, **examples: Any) -> Result:
    """`examples`: arrays by name, of the candidate's golden.npz."""
    folders = [store(root, "m", version, content) for version, content in ((1, stable), (2, candidate))]
    if examples:
        outputs = {"y": examples.pop("y")}
        golden.save(folders[1] / "golden.npz", examples, outputs)
    order = Order("a", 1, "w", "m", "1", "2", terms)
    return Try(order, *map(held, folders)).result()


def test_a_good_candidate_passes_and_says_what_was_tried(tmp_path: Path) -> None:
    result = tried(tmp_path, times(1), times(2), x=ROWS, y=2 * ROWS)
    assert result.passed, result.fault
    assert result.seen[:2] == ("same signature as stable", "3 golden examples right, within 0")
    assert "for 1 row (stable" in result.seen[2]


def test_another_signature_is_refused_unless_the_plan_says_breaking(tmp_path: Path) -> None:
    assert tried(tmp_path, times(1), times(1, 5)).fault.startswith("signature: input 'x': expected shape [-1, 4]")
    assert tried(tmp_path, times(1), times(1, 5), replace(TERMS, is_breaking=True)).passed


def test_the_first_wrong_golden_example_is_named(tmp_path: Path) -> None:
    wanted = 2 * ROWS
    wanted[2, 3] = 23
    fault = tried(tmp_path, times(1), times(2), x=ROWS, y=wanted).fault
    assert fault == "golden example 3 of 3: output 'y'[3]: expected 23, got 22: 4.35 % off, tolerance 0.1 %"


def test_a_golden_example_that_makes_the_model_fail_is_named(tmp_path: Path) -> None:
    examples = {"x": np.array([1, 7, 99]), "y": np.array([10, 70, 990], np.float32)}
    fault = tried(tmp_path, lookup(), lookup(), **examples).fault
    assert fault.startswith("golden example 3 of 3: expected an answer, got: ")
    assert "99" in fault


def test_examples_may_be_required(tmp_path: Path) -> None:
    assert (
        "is not there, and the plan requires it"
        in tried(tmp_path, times(1), times(1), replace(TERMS, golden_required=True)).fault
    )


def test_a_file_that_is_no_file_of_examples_is_refused_by_name(tmp_path: Path) -> None:
    store(tmp_path, "m", 2, times(1))
    (tmp_path / "m" / "2" / "golden.npz").write_bytes(b"no zip")
    assert f"{tmp_path / 'm' / '2' / 'golden.npz'}: cannot be read" in tried(tmp_path, times(1), times(1)).fault


def test_nan_where_stable_has_none_is_refused(tmp_path: Path) -> None:
    root = build([node("Sqrt", ["x"], ["y"])], [tensor("x")], [tensor("y")])
    assert "expected a finite number, got nan, stable gives finite ones" in tried(tmp_path, times(1), root).fault
    assert tried(tmp_path, root, root).passed


def test_a_slow_candidate_is_refused_with_both_times(tmp_path: Path) -> None:
    fault = tried(tmp_path, busy(10), busy(4000)).fault
    assert "times as long as stable" in fault
    assert "expected 3 times at most (acceptance.latency)" in fault


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    limited = replace(TERMS, memory_bytes=32 * 2**20, latency=100.0)
    fault = tried(tmp_path, lookup(), lookup(12_000_000), limited).fault
    assert "MiB of memory in a worker, expected 32 MiB at most" in fault
    result = tried(tmp_path, lookup(), lookup(), limited)
    assert result.passed, result.fault
    assert "MiB of memory" in result.seen[-1]


# --- through the store


class Attempt:
    def __init__(self, id_: str, **more: Any) -> None:
        self.id, self.stable = id_, "1"
        self.plan: Plan = parse({"model": "m", "candidate": 2, "strategy": "canary", **more})


def worker(incarnation: str, index: int = 0) -> Any:
    ready = {"state": "READY", "reason": ""}
    return SimpleNamespace(incarnation=incarnation, host="h", index=index, versions={"m": {"1": ready, "2": ready}})


def test_a_gateway_tries_a_candidate_in_one_worker_while_it_serves(tmp_path: Path, serve: Serve) -> None:
    models = tmp_path / "models"
    put(models, "m", 1, times(1))
    put(models, "m", 2, times(2))
    golden.save(models / "m" / "2" / "golden.npz", {"x": ROWS}, {"y": 2 * ROWS})
    gateway = serve(models, "--workers", "2", "--state", str(tmp_path / "state"))
    gateway.wait_routed("m")
    database = Store.open(f"sqlite:///{tmp_path / 'state' / 'gateway.db'}", tmp_path / "state")
    try:
        live = eventually(lambda: len(found := database.workers()) == 2 and found, "both workers have reported")
        attempt = Attempt("good")
        trial = eventually(
            lambda: (now := acceptance.trial(database, live, attempt)).passed is not None and now, "it is tried", 20
        )
        assert trial.passed, trial.fault
        assert "3 golden examples right" in trial.seen
        assert len(database.reports(RESULT_KIND)) == 1
        golden.save(models / "m" / "2" / "golden.npz", {"x": ROWS}, {"y": ROWS})
        trial = eventually(
            lambda: (now := acceptance.trial(database, live, Attempt("bad"))).passed is not None and now, "again", 20
        )
        assert trial.passed is False
        assert trial.fault.startswith("golden example 1 of 3: output 'y'[1]: expected 1, got 2")
        assert acceptance.trial(database, live, attempt).passed, "another attempt's trial is none of this one's"
    finally:
        database.close()


@pytest.fixture
def database(tmp_path: Path) -> Any:
    found = Store.open(f"sqlite:///{tmp_path / 'gateway.db'}", tmp_path)
    yield found
    found.close()


def test_asking_again_asks_nobody_twice(database: Store) -> None:
    for _ in range(3):
        assert acceptance.trial(database, [worker("a"), worker("b", 1)], Attempt("x")).passed is None
    (order,) = database.reports("acceptance_order")
    assert order.key == "x/1"


def test_nobody_is_asked_before_somebody_has_both_versions(database: Store) -> None:
    busy_ = worker("a")
    busy_.versions["m"]["2"] = {"state": "LOADING", "reason": ""}
    assert acceptance.trial(database, [busy_], Attempt("x")).passed is None
    assert not database.reports("acceptance_order")


def test_a_candidate_that_two_workers_die_of_is_refused(database: Store) -> None:
    for incarnation in ("a", "b"):
        assert acceptance.trial(database, [worker(incarnation)], Attempt("x")).passed is None
    trial = acceptance.trial(database, [worker("c")], Attempt("x"))
    assert trial.passed is False
    assert trial.fault == "2 workers died while they tried it, before it had any request"


def test_what_a_worker_found_counts_also_when_it_has_died_since(database: Store) -> None:
    acceptance.trial(database, [worker("a")], Attempt("x"))
    database.put_reports("a", [Report(RESULT_KIND, "m", "2", "x/1", Result("", ("all",)).body(), 0.0)])
    assert acceptance.trial(database, [worker("b")], Attempt("x")).passed


# --- the command that writes examples


def test_the_command_writes_the_versions_own_answers_or_those_it_is_given(trained_models: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(trained_models / "wine", models / "wine")
    examples = models / "wine" / "2" / "golden.npz"
    examples.unlink()
    rows = tmp_path / "rows.csv"
    rows.write_text("body,colour,flavanoids,hue,malic_acid,proline\nfull,deep,3.06,1.04,1.71,1065\n")
    words = ["model", "golden", "wine", str(rows), "--version", "2", "--models", str(models)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "1 examples with the version's own answers" in done.output
    backend = onnx.load(examples.parent, ModelConfig())
    found = golden.read(examples.parent, backend.signature)
    assert found is not None
    assert (found.n, found.outputs["label"].tolist()) == (1, ["barolo"])
    again = CliRunner().invoke(app, words)
    assert (again.exit_code, "is there already; --force" in again.output) == (2, True)
    words[3] = str(models / "wine" / "1" / "golden.npz")
    forced = CliRunner().invoke(app, [*words, "--force", "--rows", "8"])
    assert forced.exit_code == 0, forced.output
    assert "8 examples with DATA's answers" in forced.output
    assert "does not answer as DATA says: golden example" in forced.output


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"input:x": ROWS}, "has no array output:y"),
        ({"output:y": ROWS}, "has no array input:x"),
        ({"input:x": ROWS, "output:y": ROWS[:2]}, "got arrays of 2, 3 rows, expected the same"),
        ({"input:x": ROWS[:, :2], "output:y": ROWS}, "input:x: got examples of shape [2], expected [4]"),
        ({"input:x": ROWS.astype(str), "output:y": ROWS}, "expected FP32"),
        ({"input:x": ROWS, "input:w": ROWS, "output:y": ROWS}, "got input:w, expected inputs x of the model"),
    ],
)
def test_a_faulty_file_is_refused_by_the_name_of_the_array(
    tmp_path: Path, arrays: dict[str, Any], complaint: str
) -> None:
    folder = store(tmp_path, "m", 2, times(1))
    np.savez(folder / "golden.npz", **arrays)
    assert complaint in tried(tmp_path, times(1), times(1)).fault

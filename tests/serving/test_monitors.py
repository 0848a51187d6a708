"""What a worker tells the agent of its versions' values, and how the tiles of a real gateway reach the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.monitoring.plan import from_document, plain_plan, plan_of
from gateway.monitoring.profile import load_profile
from gateway.monitoring.tile import TileCounts, decode
from gateway.monitoring.tilekey import TileKey
from gateway.native.lane import Lane
from gateway.native.signature import Signature as NativeSignature
from gateway.native.tileplan import TilePlan
from gateway.native.timers import Timers
from gateway.serving.monitors import KIND, PLAN_EVERY_S, PLAN_KIND, Monitors, Watch
from gateway.store import Store
from gateway.store.records import Report
from tests.serving.test_profile_served import profiled
from tests.support import onnxmodels
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Client, connect

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),), True)
PLAN = plain_plan(SIGNATURE)
MINUTE_S = 1_700_000_040.0


def lane() -> Lane:
    tensors = [("x", "FP32", (-1, 2))], [("y", "FP32", (-1, 1))]
    return Lane(NativeSignature("m", "1", *tensors, True), None, None, None, Timers(), [], max_batch_size=1)


class Clock:
    """Wall time that moves when told; the monotonic clock hardly does in a test."""

    now_s = MINUTE_S + 1

    def __call__(self) -> float:
        return self.now_s


def note(served: Lane, n: int) -> None:
    rows = np.ones((n, 2), np.float32)
    assert served.monitor
    served.monitor.note_rows([rows], [rows[:, :1].copy()])


def told(reports: list[Report], plan: TilePlan = PLAN) -> dict[int, int]:
    """Rows by start of the minute, after MINUTE_S."""
    tiles = [report for report in reports if report.kind == KIND]
    assert {(report.model, report.version) for report in tiles} <= {("m", "1")}
    keys = [TileKey.parse(report.key) for report in tiles]
    assert all(key.plan == plan.digest.hex() for key in keys)
    return {
        key.start_s - int(MINUTE_S): decode(plan, report.body).n_rows for key, report in zip(keys, tiles, strict=True)
    }


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitors(clock: Clock) -> Monitors:
    return Monitors(clock)


def test_tiles_are_told_when_they_change_and_the_plan_now_and_then(monitors: Monitors, clock: Clock) -> None:
    served = lane()
    monitors.attach("m", "1", served, Watch(PLAN, SIGNATURE, False, "no good"))
    (plan,) = monitors.read()
    assert (plan.kind, plan.key) == (PLAN_KIND, PLAN.digest.hex())
    assert from_document(plan.body).digest == PLAN.digest
    assert json.loads(plan.body)["fault"] == "no good"
    note(served, 3)
    assert told(monitors.read()) == {0: 3}
    assert monitors.read() == []
    clock.now_s += PLAN_EVERY_S
    assert [report.kind for report in monitors.read()] == [PLAN_KIND]


def test_a_minute_that_is_over_is_told_twice_for_the_store_may_have_just_gone_away(
    monitors: Monitors, clock: Clock
) -> None:
    served = lane()
    monitors.attach("m", "1", served, Watch(PLAN, SIGNATURE, True))
    note(served, 3)
    clock.now_s += 60
    assert told(monitors.read()) == {0: 3}
    assert told(monitors.read()) == {0: 3}
    assert monitors.read() == []


def test_a_version_that_is_loaded_again_goes_on_with_its_minute(monitors: Monitors) -> None:
    old, new, other = lane(), lane(), lane()
    monitors.attach("m", "1", old, Watch(PLAN, SIGNATURE, False))
    note(old, 3)
    old.close()
    monitors.attach("m", "1", new, Watch(plain_plan(SIGNATURE), SIGNATURE, False))
    note(new, 4)
    assert new.monitor is old.monitor
    assert told(monitors.read()) == {0: 7}
    renamed = TilePlan([{**column, "name": "other"} for column in PLAN.columns])
    monitors.attach("m", "1", other, Watch(renamed, SIGNATURE, True))
    assert other.monitor is not new.monitor


def test_what_a_version_counted_last_is_told_after_it_is_unloaded(monitors: Monitors) -> None:
    served = lane()
    monitors.attach("m", "1", served, Watch(PLAN, SIGNATURE, False))
    note(served, 3)
    served.close()
    assert list(monitors.state()) == [("m", "1")]
    assert told(monitors.read()) == {0: 3}
    assert not monitors.state()
    assert monitors.read() == []


def test_a_plan_survives_being_a_document_and_says_what_is_wrong_with_another(tmp_path: Path) -> None:
    folder = profiled(tmp_path, "m", onnxmodels.linear())
    plan = plan_of(load_profile(folder))
    from gateway.monitoring.plan import to_document

    assert from_document(to_document(plan)).digest == plan.digest
    for wrong in (b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "columns": [{"name": "x"}]}', b"\xff"):
        with pytest.raises(ValueError, match="a plan's document cannot be read"):
            from_document(wrong)


def test_a_key_survives_being_text() -> None:
    key = TileKey(1_700_000_040, 3, "ab" * 16, "beta/candidate")
    assert TileKey.parse(str(key)) == key
    for wrong in ("", "1/2/3", "a/2/c/d"):
        with pytest.raises(ValueError, match="expected START/STAGE/PLAN/ARM"):
            TileKey.parse(wrong)


def test_without_a_profile_large_and_open_outputs_are_left_out() -> None:
    outputs = (
        TensorSpec("label", "INT64", (-1,)),
        TensorSpec("scores", "FP32", (-1, 3)),
        TensorSpec("text", "BYTES", (-1, 1)),
        TensorSpec("open", "FP32", (-1, -1)),
        TensorSpec("embedding", "FP32", (-1, 768)),
    )
    plan = plain_plan(Signature(SIGNATURE.inputs, outputs, True))
    assert [column["name"] for column in plan.columns] == ["label", "scores[0]", "scores[1]", "scores[2]"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    profiled(root, "m", onnxmodels.linear())
    (root / "bad" / "1").mkdir(parents=True)
    onnxmodels.store(root, "bad", 1, onnxmodels.linear())
    (root / "bad" / "1" / "profile.json").write_text('{"format": 1, "model": "bad"}')
    onnxmodels.store(root, "bare", 1, onnxmodels.linear())
    return root


def tiles_of(store: Store, model: str) -> Iterator[tuple[TileKey, TileCounts]]:
    reports = store.reports(KIND, model)  # before the plans: those came with them
    plans = {report.key: from_document(report.body) for report in store.reports(PLAN_KIND, model)}
    for report in reports:
        key = TileKey.parse(report.key)
        yield key, decode(plans[key.plan], report.body)


@pytest.mark.slow
def test_tiles_of_two_workers_reach_the_store_and_add_up_to_what_was_asked(models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    rows = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    rows[5, 1] = np.nan
    with GatewayProcess(models, tmp_path / "gateway", "--state", str(state), "--workers", "2") as gateway:
        said = gateway.events("profile cannot be used, the version serves without drift monitoring")
        assert {event["model"] for event in said} == {"bad"}
        for part in np.array_split(rows, 30):
            with connect(gateway.grpc_url) as channel:  # a connection each: they spread over the workers
                client = Client(channel)
                for model in ("m", "bad", "bare"):
                    client.infer(model, {"x": part})
        store = Store.open(f"sqlite:///{state}/gateway.db")

        def asked(model: str) -> int:
            return sum(tile.n_requests for _, tile in tiles_of(store, model))

        began_s = time.time()
        eventually(lambda: all(asked(model) == 30 for model in ("m", "bad", "bare")), "all tiles", 60)
        tiles = list(tiles_of(store, "m"))
        assert {report.incarnation for report in store.reports(KIND, "m")} <= {
            worker.incarnation for worker in store.workers()
        }
        assert {key.arm for key, _ in tiles} == {"stable"}
        assert {key.stage for key, _ in tiles} <= {0, 1}  # before and after the first route
        assert all(key.start_s % 60 == 0 and key.start_s <= began_s for key, _ in tiles)
        columns = [f"x[{i}]" for i in range(4)]
        found = {name: sum(tile.columns[name]["counts"] for _, tile in tiles) for name in columns}
        profile = {column.name: column for column in load_profile(models / "m" / "1").columns}
        for i, name in enumerate(columns):
            edges = np.array(profile[name].edges)
            finite = rows[:, i][np.isfinite(rows[:, i])].astype(float)
            cells = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
            assert found[name].tolist() == cells[1:-1].tolist()
        assert sum(tile.columns["x[1]"]["nan"] for _, tile in tiles) == 1
        assert sum(int(tile.latency.sum()) for _, tile in tiles) == 30
        for model in ("bad", "bare"):
            assert sum(tile.n_rows for _, tile in tiles_of(store, model)) == 90

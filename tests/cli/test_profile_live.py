"""`gateway profile build --from-live`: rows that a running gateway answers become a baseline, and leave no trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.monitoring.profile import Numeric, load_profile
from gateway.serving.captures import Tap
from tests.support import onnxmodels
from tests.support.gatewayprocess import GatewayProcess

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live") / "models"
    onnxmodels.store(root, "loan", 1, onnxmodels.linear())
    onnxmodels.store(root, "idle", 1, onnxmodels.linear())
    return root


@pytest.fixture(scope="module")
def gateway(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("state")
    with GatewayProcess(models, folder, "--workers", "2", "--state", str(folder / "state")) as running:
        running.wait_routed("loan", "idle")
        yield running


@pytest.fixture
def traffic(gateway: GatewayProcess) -> Iterator[None]:
    """The 40 rows again and again, eight to a request."""
    stop = threading.Event()

    def ask() -> None:
        with triton.InferenceServerClient(gateway.grpc_url) as client:
            at = 0
            while not stop.is_set():
                x = triton.InferInput("x", [8, 4], "FP32")
                x.set_data_from_numpy(X[at : at + 8])
                client.infer("loan", [x])
                at = (at + 8) % len(X)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


def build(gateway: GatewayProcess, *arguments: object) -> Result:
    at = ("--models", gateway.models, "--server", gateway.control_url)
    return CliRunner().invoke(app, ["profile", "build", *map(str, (*arguments, *at))])


@pytest.mark.usefixtures("traffic")
def test_live_rows_become_a_profile_marked_as_such(gateway: GatewayProcess) -> None:
    done = build(gateway, "--model", "loan", "--from-live", 2000)
    assert (done.exit_code, done.stderr) == (0, "")
    profile = load_profile(gateway.models / "loan" / "1")
    assert (profile.source, profile.rows) == ("live", 2000)
    y = X @ onnxmodels.weights(4, 3) + 1
    for column, seen in zip(profile.watched, (*X.T, *y.T), strict=True):
        assert isinstance(column, Numeric)
        assert column.min == pytest.approx(seen.min(), abs=1e-5)
        assert column.max == pytest.approx(seen.max(), abs=1e-5)
        assert column.mean == pytest.approx(seen.mean(), abs=0.1)
    control = gateway.control()
    actions = [entry["action"] for entry in control.get("/v1/audit?action=capture")["entries"]]
    assert actions == ["capture.end", "capture.begin"]


def test_who_answers_nobody_gives_no_rows(gateway: GatewayProcess) -> None:
    done = build(gateway, "--model", "idle", "--from-live", 10, "--wait", "1s")
    assert done.exit_code == 1
    assert "idle version 1 answered 0 of 10 rows within 1 s; wait longer (--wait)" in done.stderr
    assert not (gateway.models / "idle" / "1" / "profile.json").exists()


def test_one_capture_at_a_time_and_an_ended_one_is_forgotten(gateway: GatewayProcess) -> None:
    control = gateway.control()
    status, made = control.ask("POST", "/v1/models/loan/versions/1/captures", {"rows": 10})
    assert (status, made["rows"], made["captured"]) == (201, 10, 0)
    status, refusal = control.ask("POST", "/v1/models/idle/versions/1/captures", {"rows": 10})
    assert status == 409
    assert f"DELETE /v1/captures/{made['id']} ends it" in refusal["error"]
    status, refusal = control.ask("GET", f"/v1/captures/{made['id']}/rows")
    assert (status, "has no rows yet" in refusal["error"]) == (409, True)
    assert control.ask("DELETE", f"/v1/captures/{made['id']}") == (200, made)
    assert control.ask("GET", f"/v1/captures/{made['id']}")[0] == 404


def test_what_a_capture_refuses(gateway: GatewayProcess) -> None:
    control = gateway.control()
    assert control.ask("POST", "/v1/models/loan/versions/9/captures", {"rows": 10})[0] == 404
    assert control.ask("POST", "/v1/models/loan/versions/1/captures", {"rows": 0})[0] == 422
    for arguments, line in (
        (("--from-live", "5", "--wait", "1h"), "--wait: got '1h', expected 10min at most"),
        ((), "got neither or both of DATA and --from-live"),
        (("rows.csv", "--from-live", "5"), "got neither or both of DATA and --from-live"),
    ):
        done = build(gateway, "--model", "loan", *arguments)
        assert (done.exit_code, line in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("server", "code", "line"),
    [
        ("ftp://x", 2, "--server: got 'ftp://x', expected an address such as http://127.0.0.1:8002"),
        ("http://127.0.0.1:1", 1, "nothing answers at http://127.0.0.1:1 (--server): "),
    ],
)
def test_nobody_at_the_address_is_told(models: Path, server: str, code: int, line: str) -> None:
    arguments = ["profile", "build", "--model", "loan", "--from-live", "5", "--server", server, "--models", str(models)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, line in done.stderr) == (code, True)


def test_a_tap_without_a_listener_hands_through() -> None:
    inputs, outputs = [X], [X + 1]
    assert Tap(lambda given: outputs if given is inputs else [])(inputs) is outputs

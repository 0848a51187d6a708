"""The OpenAPI document is true: schemathesis asks what it promises, and the paths are those of the router."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gatewayprocess import GatewayProcess
from tests.support.onnxmodels import linear, store
from tests.support.rest import RestClient, one


@pytest.fixture(scope="module")
def controlled(serve_for_module: Any, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    root = tmp_path_factory.mktemp("controlled")
    store(root, "linear", 1, linear())
    found = serve_for_module(root, "--model-control")
    assert isinstance(found, GatewayProcess)
    return found


@pytest.fixture
def rest(controlled: GatewayProcess) -> Iterator[RestClient]:
    with RestClient(controlled.rest_url) as client:
        yield client


@pytest.mark.slow
@pytest.mark.conformance
@pytest.mark.timeout(240)  # some thousand requests
def test_schemathesis_finds_no_answer_that_is_not_described(controlled: GatewayProcess, tmp_path: Path) -> None:
    """Which values fit together no schema says, so a refusal of what fits the schema is no fault."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://{controlled.rest_url}/v2/openapi.json",
    ]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", "5", "--seed", "1", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_every_path_is_described_but_generate_and_named_repositories(rest: RestClient) -> None:
    from gateway.config.limits import Limits
    from gateway.serving.catalog import Catalog
    from gateway.serving.rest import surface
    from gateway.serving.rest.classification import Labels

    class Nothing:
        def __init__(self) -> None:
            self.unary: dict[str, Any] = {}
            self.streaming: dict[str, Any] = {}

        def submit(self) -> None: ...

    router = surface.build(Nothing(), Catalog(), Nothing(), Labels(Path()), Limits(), "1", print)
    served = {
        route.pattern: {method.decode().lower() for method in route.handlers} - {"head"}
        for route in router.routes
        if "generate" not in route.pattern and "{repository}" not in route.pattern
    }
    paths = rest.get("/v2/openapi.json").json["paths"]
    assert {path: set(operations) - {"parameters"} for path, operations in paths.items()} == served


def test_config_is_tritons_with_numbers_as_numbers(rest: RestClient) -> None:
    config = rest.get("/v2/models/linear/config").json
    assert config["name"] == "linear"
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [4]
    assert rest.get("/v2/models/missing/config").status == 404


def test_statistics_count_requests_of_rest(rest: RestClient) -> None:
    def n_ok(path: str) -> int:
        (stats,) = [stats for stats in rest.get(path).json["model_stats"] if stats["name"] == "linear"]
        return int(stats["inference_stats"]["success"]["count"])

    paths = ["/v2/models/stats", "/v2/models/linear/stats", "/v2/models/linear/versions/1/stats"]
    before = [n_ok(path) for path in paths]
    assert rest.infer("linear", one()).status == 200
    assert [n_ok(path) for path in paths] == [n + 1 for n in before]


def test_a_model_is_loaded_and_unloaded(rest: RestClient, controlled: GatewayProcess) -> None:
    assert rest.post("/v2/repository/models/late/load").status == 404
    store(controlled.models, "late", 1, linear())
    assert rest.post("/v2/repository/models/late/load", {}).status == 200
    assert rest.infer("late", one()).status == 200
    ready = {entry["name"] for entry in rest.post("/v2/repository/index", {"ready": True}).json}
    assert ready == {"linear", "late"}
    unload = rest.post("/v2/repository/models/late/unload", {"parameters": {"unload_dependents": False}})
    assert (unload.status, unload.body) == (200, b"{}")
    assert rest.infer("late", one()).status == 503
    assert rest.get("/v2/models/late/ready").status == 400
    assert rest.post("/v2/repository/elsewhere/models/late/load").status == 501


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"parameters": {"file:1/model.onnx": "%%%"}}, "no base64"),
        ({"parameters": {"file:1/model.onnx": 7}}, "base64"),
        ({"parameters": {"config": {}}}, "expected a string"),
        ({"parameters": []}, "parameters: got a list"),
        ({"parameters": {"config": "{"}}, "config"),
        ([], "expected a JSON object"),
    ],
)
def test_a_wrong_load_is_400(rest: RestClient, body: Any, words: str) -> None:
    answer = rest.post("/v2/repository/models/linear/load", body)
    assert answer.status == 400
    assert words in answer.error


def test_without_model_control_nothing_is_loaded(server: GatewayProcess) -> None:
    with RestClient(server.rest_url) as client:
        answer = client.post("/v2/repository/models/linear/unload")
        assert answer.status in (501, 503)
        assert client.infer("linear", one()).status == 200

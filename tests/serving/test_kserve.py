"""KServe's own inference client, gRPC and REST. Its SDK pins other versions of what the gateway and its tests use, so
it runs in an environment of its own; without that the test is skipped and says how to make it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import environments
from bench.errors import NotMeasured
from tests.support.gatewayprocess import GatewayProcess

pytestmark = pytest.mark.conformance

SCRIPT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

grpc_url, rest_url = sys.argv[1:]
rest_url = "http://" + rest_url
X = np.array([[1, 2, 3, 4], [-1, 0.5, 0, 7]], np.float32)


def request(model, binary=False):
    x = InferInput("x", list(X.shape), "FP32")
    x.set_data_from_numpy(X, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[x], request_id="kserve-1")


def seen(response):
    (output,) = response.outputs
    return {"y": output.as_numpy().tolist(), "id": response.id, "model": response.model_name,
            "version": response.model_version}


async def failure(awaitable):
    try:
        await awaitable
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def main():
    found = {}
    grpc = InferenceGRPCClient(grpc_url, timeout=20)
    found["grpc"] = {
        "live": await grpc.is_server_live(), "ready": await grpc.is_server_ready(),
        "model": await grpc.is_model_ready("linear"), "infer": seen(await grpc.infer(request("linear"))),
        "failure": await failure(grpc.infer(request("nobody"))),
    }
    await grpc.close()
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    found["rest"] = {
        "live": await rest.is_server_live(rest_url), "ready": await rest.is_server_ready(rest_url),
        "model": await rest.is_model_ready(rest_url, "linear"),
        "infer": seen(await rest.infer(rest_url, request("linear"), model_name="linear")),
        "binary": seen(await rest.infer(rest_url, request("linear", binary=True), model_name="linear")),
        "failure": await failure(rest.infer(rest_url, request("nobody"), model_name="nobody")),
    }
    await rest.close()
    print("FOUND", json.dumps(found))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def found(server: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the SDK's clients got."""
    try:
        python = environments.python("kserve")
    except NotMeasured as reason:
        pytest.skip(str(reason))
    script = tmp_path_factory.mktemp("kserve") / "ask.py"
    script.write_text(SCRIPT)
    # It must see its own packages, and no sanitizer that ours run under.
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONMALLOC", "LD_PRELOAD")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [str(python), str(script), server.grpc_url, server.rest_url]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path("/"), timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return dict(json.loads(line.removeprefix("FOUND ")))


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_health_is_seen(found: dict[str, Any], protocol: str) -> None:
    assert [found[protocol][what] for what in ("live", "ready", "model")] == [True, True, True]


def test_the_same_prediction_comes_by_all_paths(found: dict[str, Any]) -> None:
    answer = found["grpc"]["infer"]
    assert (answer["id"], answer["model"], answer["version"]) == ("kserve-1", "linear", "1")
    assert len(answer["y"]) == 2
    for kind in ("infer", "binary"):
        assert found["rest"][kind] == {**answer, "version": None}  # its REST side does not read model_version


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_failure_is_an_error_with_our_words(found: dict[str, Any], protocol: str) -> None:
    assert "Request for unknown model: 'nobody' is not found" in found[protocol]["failure"]

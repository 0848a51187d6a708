"""Versions that a real tritonserver runs, as callers of the gateway see them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from demo.triton import wheel
from demo.triton.repository import TritonModel, store
from demo.triton.server import TritonServer
from gateway import pb
from gateway.native.monitor import Monitor
from gateway.serving.monitors import Monitors
from tests.support import onnxmodels
from tests.support.conditions import eventually
from tests.support.inprocess import InProcess, serving
from tests.support.oip import Client, arrays, connect, request

pytestmark = pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not())

ODD = """\
class TritonPythonModel:
    def initialize(self, args):
        self.told = os.path.join(args["model_repository"], "cancelled")

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            y = x * 2
            if (x == -1).any():
                raise ValueError("a secret of the model: failed to connect, Socket closed")
            if (x == -2).any():
                answers.append(pb.InferenceResponse([], pb.TritonError("no -2, please", pb.TritonError.INVALID_ARG)))
                continue
            if (x == -3).any():
                y = y.astype(np.float64)
            if (x == -4).any():
                y = y[:, :1]
            if (x == -5).any():
                open(self.told + " not", "w").close()
                for turn in range(2000):
                    time.sleep(0.02)
                    if request.is_cancelled():
                        open(self.told, "w").write(str(turn))
                        break
            answers.append(pb.InferenceResponse([pb.Tensor("y", y)]))
        return answers
"""
TEXTS = """\
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            texts = pb.get_input_tensor_by_name(request, "x").as_numpy()
            told = np.array([text[::-1] for text in texts.ravel()], np.object_).reshape(texts.shape)
            answers.append(pb.InferenceResponse([pb.Tensor("y", told)]))
        return answers
"""
TELLS = """\
class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            rows = len(pb.get_input_tensor_by_name(request, "x").as_numpy())
            told = json.dumps([rows, request.request_id(), json.loads(request.parameters())]).encode()
            answers.append(pb.InferenceResponse([pb.Tensor("y", np.array([[told]] * rows, np.object_))]))
        return answers
"""
X, Y = [("x", "FP32", [2])], [("y", "FP32", [2])]
MODELS = (
    TritonModel("odd", X, Y, ODD, max_batch_size=8),  # its batcher would join a guilty batch with an innocent one
    TritonModel("texts", [("x", "BYTES", [2])], [("y", "BYTES", [2])], TEXTS, max_batch_size=8),
    TritonModel("tells", X, [("y", "BYTES", [1])], TELLS, max_batch_size=8),
    TritonModel("whole", [("x", "FP32", [-1, 2])], [("y", "FP32", [-1, 2])], ODD, max_batch_size=0),
)


def doubled(shape: tuple[int | str, ...] = ("N", 2)) -> bytes:
    node = onnxmodels.node("Add", ["x", "x"], ["y"])
    return onnxmodels.build([node], [onnxmodels.tensor("x", shape=shape)], [onnxmodels.tensor("y", shape=shape)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("triton")
    for model in MODELS:
        store(folder / "repository", model)
    names = tuple(model.name for model in MODELS)
    with TritonServer(folder / "repository", folder, explicit=True, load=names) as running:
        yield running


def put(root: Path, model: str, text: str, version: int = 1) -> None:
    (root / model / str(version)).mkdir(parents=True)
    (root / model / "model.yaml").write_text(f"backend: triton\n{text}")


@pytest.fixture(scope="module")
def gateway(server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """All of MODELS; `odd` also as version 2 in this process, and `tells` also as `forwarded`."""
    root = tmp_path_factory.mktemp("models")
    at = f"triton: {{endpoints: ['{server.url}']"
    for model in MODELS:
        put(root, model.name, at + "}")
    (root / "odd" / "model.yaml").write_text(at + "}\n")
    (root / "odd" / "1" / "triton.yaml").write_text("")
    onnxmodels.store(root, "odd", 2, doubled())
    put(root, "forwarded", f"batching: remote\n{at}, model: tells}}")
    with serving(root, forward_headers="x-.*") as running:
        running.route({"odd": {"versions": {"1": 100}}})
        yield running


@pytest.fixture(scope="module")
def client(gateway: InProcess) -> Iterator[Client]:
    with connect(gateway.url) as channel:
        yield Client(channel)


def rows(*values: float) -> np.ndarray[Any, Any]:
    return np.array([[value, 10 * value + 100] for value in values], np.float32).reshape(-1, 2)


def ask(client: Client, model: str, x: np.ndarray[Any, Any], **wishes: Any) -> np.ndarray[Any, Any]:
    answer: np.ndarray[Any, Any] = arrays(client.send(request(model, {"x": x}), **wishes))["y"]
    return answer


def refusal(work: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return caught.value


# --- answers


def test_answers_are_those_of_the_server_whatever_is_batched_with_them(client: Client) -> None:
    def one(number: int) -> bool:
        x = rows(*range(number % 11))  # 0 to 10 rows, where 8 are a batch
        return np.array_equal(ask(client, "odd", x), 2 * x)

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(one, range(300)))


def test_texts_and_models_without_a_batch_get_there_and_back(client: Client) -> None:
    x = np.array([["ab", "grüße"], ["", "x" * 300]], object)
    expected = [[t.encode()[::-1] for t in row] for row in x.tolist()]
    assert ask(client, "texts", x).tolist() == expected
    np.testing.assert_array_equal(ask(client, "whole", rows(1, 2, 3)), 2 * rows(1, 2, 3))


def test_a_forwarded_request_brings_its_id_parameters_and_headers(client: Client) -> None:
    message = request("forwarded", {"x": rows(1, 2, 3)}, id="mine")
    message.parameters["tone"].string_param = "kind"
    metadata = (("x-user", "me"), ("traceparent", "no trace"))
    told = [json.loads(text) for text in arrays(client.send(message, metadata=metadata))["y"].ravel()]
    assert told == [[3, "mine", {"tone": "kind", "x-user": "me"}]] * 3


def test_tritons_own_client_and_a_stream_need_not_know(gateway: InProcess) -> None:
    x = rows(1, 2)
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    with triton.InferenceServerClient(gateway.url) as theirs:
        assert theirs.get_model_metadata("odd", "1").platform == "python"
        config = theirs.get_model_config("odd", "1").config
        assert (config.backend, config.max_batch_size, config.default_model_filename) == ("python", 8, "")
        found: list[Any] = []
        arrived = threading.Event()
        theirs.start_stream(lambda result, error: (found.append((result, error)), arrived.set()))
        theirs.async_stream_infer("odd", [tensor])
        assert arrived.wait(10)
        theirs.stop_stream()
        (result, error) = found[0]
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * x)
        index = {(m.name, m.version): m.state for m in theirs.get_model_repository_index().models}
        assert index["odd", "1"] == index["odd", "2"] == "READY"
        stats = theirs.get_inference_statistics("odd", "1").model_stats[0]
        assert stats.inference_count >= 2
        assert stats.execution_count >= 1


# --- who failed


def test_the_guilty_request_of_a_batch_fails_alone_and_its_model_keeps_its_secrets(client: Client) -> None:
    def one(value: int) -> str:
        try:
            return "right" if np.array_equal(ask(client, "odd", rows(value)), 2 * rows(value)) else "wrong"
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, [1, 2, -1, 3, 4, -2, 5, 6] * 4))
    assert found[0::8] == found[1::8] == found[3::8] == found[4::8] == found[6::8] == found[7::8] == ["right"] * 4
    assert set(found[2::8]) == {'INTERNAL: model "odd" version 1 failed on this request'}
    assert set(found[5::8]) == {'INVALID_ARGUMENT: model "odd" version 1 refused the input: no -2, please'}


def test_an_answer_of_the_wrong_type_or_shape_is_no_answer(client: Client) -> None:
    for value in (-3, -4):
        error = refusal(lambda value=value: ask(client, "odd", rows(value)))  # type: ignore[misc]
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "does not fit its signature" in error.details()
    np.testing.assert_array_equal(ask(client, "odd", rows(7)), 2 * rows(7))


def test_deadlines_and_cancels_reach_the_server(server: TritonServer, client: Client) -> None:
    told, begun = (server.repository / "odd" / name for name in ("cancelled", "cancelled not"))
    for timeout_s in (0.3, 3.0, 30.0):  # so long that it comes as far as the model
        error = refusal(lambda timeout_s=timeout_s: ask(client, "odd", rows(-5), timeout=timeout_s))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if begun.exists():
            break
    eventually(told.exists, "the model was told of the deadline")
    told.unlink()
    begun.unlink()
    call = client.start(request("odd", {"x": rows(-5)}), timeout=60)
    eventually(begun.exists, "it is there")
    call.cancel()
    eventually(told.exists, "the model was told that its caller left")
    told.unlink()


# --- beside versions of this process


def test_arms_shadows_and_monitors_are_the_same_for_both(gateway: InProcess, client: Client) -> None:
    route = {"versions": {"2": 50, "1": 50}, "shadows": [{"version": "1", "max_concurrency": 100}]}
    gateway.route({"odd": route}, 2)
    before = gateway.counted()
    lane = gateway.loader.lanes["odd", "1"]

    def watched() -> Monitor:
        monitors = Monitors()
        source = next(held.source for entry, held in gateway.services._holdings.items() if held.lane is lane)
        assert source.watch
        monitors.attach("odd", "1", lane, source.watch)
        assert lane.monitor
        return lane.monitor

    monitor = gateway.do(watched)
    for number in range(60):
        np.testing.assert_array_equal(ask(client, "odd", rows(number)), 2 * rows(number))
    counted = {arm: n - before.get(arm, 0) for arm, n in gateway.counted().items()}
    assert counted["2 stable"] + counted["1 candidate"] == 60
    assert counted["1 candidate"] > 5
    twin = lane.twin
    assert twin
    eventually(lambda: gateway.do(lambda: twin.statistics()["requests"].get(0, 0)) > 0, "the shadow was answered")
    tiles = gateway.do(lambda: monitor.cut(time.time()))
    assert tiles
    gateway.route({"odd": {"versions": {"1": 100}}}, 3)


def test_a_version_in_this_process_answers_where_the_server_fails(gateway: InProcess, client: Client) -> None:
    gateway.route({"odd": {"versions": {"1": 100}, "fallback": {"version": "2", "on": ["error"]}}}, 4)
    answer = client.send(request("odd", {"x": rows(-1)}))
    assert answer.model_version == "2"
    assert answer.parameters["gateway_fallback_from"].string_param == "1"
    np.testing.assert_array_equal(arrays(answer)["y"], 2 * rows(-1))
    gateway.route({"odd": {"versions": {"1": 100}}}, 5)


# --- servers that come, go and change


def test_servers_that_are_down_make_a_version_unready_until_they_are_back(server: TritonServer, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    store(repository, MODELS[0])
    own = TritonServer(repository, tmp_path / "own")
    with own:
        own.kill()  # it has its ports now
        put(tmp_path / "models", "odd", f"triton: {{endpoints: ['{own.url}']}}")
        with serving(tmp_path / "models") as gateway, connect(gateway.url) as channel:
            client = Client(channel)
            error = refusal(lambda: ask(client, "odd", rows(1)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert f"{own.url} cannot be reached" in error.details()
            own.start()
            entry = gateway.catalog.versions("odd")[0]
            eventually(lambda: entry.is_ready, "it is loaded by itself", 60)
            np.testing.assert_array_equal(ask(client, "odd", rows(1)), 2 * rows(1))
            own.kill()
            eventually(lambda: not entry.is_ready, "it is not ready without its server")
            error = refusal(lambda: ask(client, "odd", rows(1)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert own.url in error.details()
            store(repository, TritonModel("odd", X, [("y", "FP64", [2])], ODD, max_batch_size=8))
            own.start()
            change = "output 'y' has datatype FP64, and had FP32"
            eventually(lambda: change in entry.reason or entry.is_ready, "it was asked what it is now")
            assert not entry.is_ready


def test_a_changed_signature_is_a_state_and_never_an_answer(server: TritonServer, tmp_path: Path) -> None:
    repository = server.repository
    steady = TritonModel("shifty", X, Y, ODD, max_batch_size=8)
    wider = TritonModel("shifty", [("x", "FP32", [3])], [("y", "FP32", [3])], ODD, max_batch_size=8)
    store(repository, steady)
    put(tmp_path, "shifty", f"triton: {{endpoints: ['{server.url}']}}")
    with triton.InferenceServerClient(server.url) as theirs:
        theirs.load_model("shifty")
        with serving(tmp_path) as gateway, connect(gateway.url) as channel:
            client, entry = Client(channel), gateway.catalog.versions("shifty")[0]
            np.testing.assert_array_equal(ask(client, "shifty", rows(1)), 2 * rows(1))
            store(repository, wider)
            theirs.load_model("shifty")
            error = refusal(lambda: ask(client, "shifty", rows(1)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "input 'x' has shape [-1, 3], and had [-1, 2]" in error.details()
            eventually(lambda: not entry.is_ready, "it is not ready")
            assert "its signature is not what it was at load" in entry.reason
            ready = pb.inference.ModelReadyRequest(name="shifty")
            assert not client.unary("ModelReady")(ready).ready
            store(repository, steady)
            theirs.load_model("shifty")
            eventually(lambda: entry.is_ready, "it is ready again")
            np.testing.assert_array_equal(ask(client, "shifty", rows(1)), 2 * rows(1))


def test_what_cannot_be_loaded_says_why(server: TritonServer, tmp_path: Path) -> None:
    at = f"triton: {{endpoints: ['{server.url}']"
    put(tmp_path, "absent", at + "}")
    put(tmp_path, "odd", f"batching: {{max_batch_size: 9}}\n{at}}}")
    put(tmp_path, "nowhere", "")
    onnxmodels.store(tmp_path, "here", 1, doubled(), "batching: remote")
    with serving(tmp_path) as gateway:
        reasons = {model: gateway.catalog.versions(model)[0].reason for model in gateway.catalog.models()}
    assert "Request for unknown model: 'absent'" in reasons["absent"]
    assert "batching.max_batch_size is 9, expected at most 8" in reasons["odd"]
    assert "no servers are named; set triton.endpoints" in reasons["nowhere"]
    assert "batching is remote, and it runs in this process" in reasons["here"]

"""One REST request at a time, to see that the answers are right before and after a measurement."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime

from bench import payloads
from bench.errors import BenchError
from bench.models import Model

READY_S = 60


def check_answers(port: int, model: Model, who: str, count: int = 4, seed: int = 1) -> None:
    """Asks `count` rows as JSON, one by one; BenchError at the first answer that is not ONNX Runtime's own."""
    session = onnxruntime.InferenceSession(model.make().SerializeToString(), providers=["CPUExecutionProvider"])
    for row in model.rows(count, seed):
        batch = row[np.newaxis]
        answer = json.loads(post(port, model.name, payloads.rest_json({"input": batch}), {}, who))
        expected = session.run(None, {"input": batch})[0]
        got = np.array(answer["outputs"][0]["data"], np.float32).reshape(expected.shape)
        if not np.allclose(got, expected, atol=model.tolerance):
            raise BenchError(f"{who}, {model.name}: got {got.ravel()[:4]}, ONNX Runtime says {expected.ravel()[:4]}")


def post(port: int, model: str, body: bytes, headers: Mapping[str, str], who: str) -> bytes:
    """The body of a successful answer; BenchError for any other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        fields = {"Content-Type": "application/json", **headers}
        connection.request("POST", f"/v2/models/{model}/infer", body, fields)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"{who}, {model}: HTTP {answer.status}: {data[:200].decode(errors='replace')}")
    return data


def wait_until_ready(port: int, model: str, who: str) -> None:
    """Listening is not yet serving."""
    end = time.monotonic() + READY_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", f"/v2/models/{model}/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if time.monotonic() > end:
            raise BenchError(f"{who}: {model} is not ready after {READY_S} s")
        time.sleep(0.05)

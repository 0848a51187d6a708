"""Real tritonservers for tests, and small models that behave in one odd way each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from bench.fleet.models import ROWS
from demo.triton.repository import TritonModel, store
from demo.triton.server import TritonServer

__all__ = ["MODELS", "Held", "TritonServer", "models", "serve_remotely", "together"]

REPEAT = """\
class TritonPythonModel:
    # As many answers as `count` says: 0, 1, ... A pause before each; a negative count fails after two answers.
    def execute(self, requests):
        for request in requests:
            count = int(pb.get_input_tensor_by_name(request, "count").as_numpy()[0])
            pause_ms = int(pb.get_input_tensor_by_name(request, "pause_ms").as_numpy()[0])
            size = int(pb.get_input_tensor_by_name(request, "size").as_numpy()[0])
            sender = request.get_response_sender()
            for index in range(count if count >= 0 else 2):
                time.sleep(pause_ms / 1e3)
                if sender.is_cancelled():
                    print("cancelled after", index, flush=True)
                    break
                values = np.full(max(size, 1), index, np.int32)
                sender.send(pb.InferenceResponse([pb.Tensor("index", values)]))
            if count < 0:
                sender.send(pb.InferenceResponse([], pb.TritonError("asked to fail")))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

TOTAL = """\
class TritonPythonModel:
    # The sum of what came in the sequence so far.
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            values, start, end, key = (
                pb.get_input_tensor_by_name(request, name).as_numpy().ravel()
                for name in ("value", "START", "END", "CORRID")
            )
            key = int(key[0])
            self.totals[key] = (0 if start[0] else self.totals.get(key, 0)) + int(values[0])
            total = self.totals.pop(key) if end[0] else self.totals[key]
            answers.append(pb.InferenceResponse([pb.Tensor("total", np.full((1, 1), total, np.int32))]))
        return answers
"""

HELD = """\
class TritonPythonModel:
    # Twice the input. While the file `hold` is beside it, only who left gets an answer. It notes who came, who left.
    def initialize(self, args):
        self.folder = args["model_repository"]

    def note(self, name, value):
        with open(os.path.join(self.folder, name), "a") as file:
            file.write(f"{value:g}\\n")

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            self.note("came", x[0, 0])
            while os.path.exists(os.path.join(self.folder, "hold")) and not request.is_cancelled():
                time.sleep(0.005)
            if request.is_cancelled():
                self.note("left", x[0, 0])
            answers.append(pb.InferenceResponse([pb.Tensor("y", x * 2)]))
        return answers
"""

CONTROLS = """\
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "END" control [ { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
"""

REPEATED = [("count", "INT32", [1]), ("pause_ms", "INT32", [1]), ("size", "INT32", [1])], [("index", "INT32", [-1])]

MODELS = {
    "double": ROWS,  # the answer is twice the input
    "repeat": TritonModel(
        "repeat", *REPEATED, REPEAT, max_batch_size=0, instances=2, more="model_transaction_policy { decoupled: true }"
    ),
    "total": TritonModel(
        "total",
        [("value", "INT32", [1])],
        [("total", "INT32", [1])],
        TOTAL,
        max_batch_size=64,  # sequences at once
        instances=1,
        more=CONTROLS,
    ),
    "held": TritonModel("held", [("x", "FP32", [1])], [("y", "FP32", [1])], HELD),
}


class Held:
    """What the model `held` does on one server, and what it has seen."""

    def __init__(self, server: TritonServer) -> None:
        self.server, self._folder = server, server.repository / "held"

    def hold(self) -> None:
        (self._folder / "hold").touch()

    def release(self) -> None:
        (self._folder / "hold").unlink(missing_ok=True)

    @property
    def came(self) -> list[float]:
        """First values of the requests that it was given, in their order."""
        return self._noted("came")

    @property
    def left(self) -> list[float]:
        """Of those whose caller has left."""
        return self._noted("left")

    def _noted(self, name: str) -> list[float]:
        file = self._folder / name
        return [float(line) for line in file.read_text().split()] if file.exists() else []


def together(servers: Iterable[TritonServer]) -> list[TritonServer]:
    """Started, all at once."""
    servers = [*servers]
    try:
        with ThreadPoolExecutor(len(servers)) as threads:
            list(threads.map(lambda server: server.start(), servers))
    except BaseException:
        for server in servers:
            server.close()
        raise
    return servers


def models(repository: Path, *names: str) -> Path:
    """The repository with those of MODELS."""
    for name in names:
        store(repository, MODELS[name])
    return repository


def serve_remotely(
    root: Path,
    name: str,
    endpoints: list[str],
    *,
    remote: str = "",
    triton: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A model of the gateway's own repository that those servers run, by the name `remote` there; `triton` is laid
    over its section.
    """
    folder = root / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    triton = {"endpoints": endpoints, "model": remote or name, "version": "1", **(triton or {})}
    (folder / "model.yaml").write_text(yaml.safe_dump({"backend": "triton", "triton": triton, **settings}))
    return folder

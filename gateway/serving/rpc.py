"""The slow-path RPCs: all that is not inference. Serialized request in, serialized response out.

Most take microseconds and no network; those that wait for other workers are among the streaming ones. Semantics are
Triton's where the Open Inference Protocol is silent. ModelInfer and ModelStreamInfer never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gateway import pb
from gateway.errors import NotFound, Unavailable, Unimplemented
from gateway.serving import statistics
from gateway.serving.catalog import Catalog
from gateway.serving.health import Health
from gateway.serving.held import Holdings
from gateway.serving.modelconfig import to_triton
from gateway.serving.reflection import V1, V1ALPHA, Reflection
from gateway.serving.repository import Repository, Workers
from gateway.serving.stream import SlowUnary, Stream, StreamHandler, parse
from gateway.serving.wording import quoted

SERVER_NAME = "gateway"
_PREFIX = "/inference.GRPCInferenceService/"

EXTENSIONS = ("schedule_policy", "model_configuration", "statistics")
"""Of Triton's extensions those that gRPC callers find here: the parameters `priority` and `timeout`, ModelConfig and
ModelStatistics.
"""
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
"""With --model-control. RepositoryIndex alone is not `model_repository`: a client that reads that word goes on to load
and unload.
"""


class Services:
    """Handlers by gRPC path, over one worker's catalog and `holdings`.

    `extensions` are the OIP extensions that the data plane really offers. `workers` are asked for their statistics;
    None: there is this one only. Without a `repository`, load and unload are refused. `more` are handlers of other
    services. `wake()` sends what handlers leave behind outside of a turn of the data plane.
    """

    unary: dict[str, Callable[[bytes], bytes]]
    """Path -> handler; it raises GatewayError."""
    streaming: dict[str, Callable[[Stream], StreamHandler]]
    """Path -> factory of a handler for one call."""

    def __init__(
        self,
        catalog: Catalog,
        version: str,
        extensions: Sequence[str] = (),
        *,
        holdings: Holdings | None = None,
        workers: Workers | None = None,
        repository: Repository | None = None,
        more: Mapping[str, Callable[[Stream], StreamHandler]] | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._holdings: Holdings = {} if holdings is None else holdings
        self._workers = workers
        self.repository = repository or Repository()
        self._version = version
        self._extensions = tuple(extensions)
        health, v1, v1alpha = Health(catalog), Reflection(V1), Reflection(V1ALPHA)
        self.unary = {
            _PREFIX + "ServerLive": self.server_live,
            _PREFIX + "ServerReady": self.server_ready,
            _PREFIX + "ServerMetadata": self.server_metadata,
            _PREFIX + "ModelReady": self.model_ready,
            _PREFIX + "ModelMetadata": self.model_metadata,
            _PREFIX + "ModelConfig": self.model_config,
            _PREFIX + "RepositoryIndex": self.repository_index,
            **health.unary,
        }
        slow = {_PREFIX + "ModelStatistics": self.model_statistics, **self.repository.slow}
        self.streaming = {
            **{path: partial(SlowUnary, work, wake) for path, work in slow.items()},
            **health.streaming,
            V1.path: v1.open,
            V1ALPHA.path: v1alpha.open,
            **(more or {}),
        }

    def server_live(self, message: bytes) -> bytes:
        parse(pb.inference.ServerLiveRequest, message)
        return _bytes(pb.inference.ServerLiveResponse(live=self._catalog.live))

    def server_ready(self, message: bytes) -> bytes:
        parse(pb.inference.ServerReadyRequest, message)
        return _bytes(pb.inference.ServerReadyResponse(ready=self._catalog.ready))

    def server_metadata(self, message: bytes) -> bytes:
        parse(pb.inference.ServerMetadataRequest, message)
        return _bytes(
            pb.inference.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=self._extensions)
        )

    def model_ready(self, message: bytes) -> bytes:
        """False, and no error, for what does not exist: pollers ask before a model is there (as Triton answers)."""
        request = parse(pb.inference.ModelReadyRequest, message)
        try:
            ready = self._catalog.resolve(request.name, request.version).is_ready and not self._catalog.draining
        except (NotFound, Unavailable):
            ready = False
        return _bytes(pb.inference.ModelReadyResponse(ready=ready))

    def model_metadata(self, message: bytes) -> bytes:
        """Shapes as clients send them: the batch dimension is the leading -1. `versions` are those that may be asked
        for now.
        """
        request = parse(pb.inference.ModelMetadataRequest, message)
        entry = self._catalog.resolve(request.name, request.version)
        tensor = pb.inference.ModelMetadataResponse.TensorMetadata
        inputs, outputs = (entry.signature.inputs, entry.signature.outputs) if entry.signature else ((), ())
        return _bytes(
            pb.inference.ModelMetadataResponse(
                name=entry.model,
                versions=[other.version for other in self._catalog.versions(entry.model) if other.is_ready],
                platform=entry.platform,
                inputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in inputs],
                outputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in outputs],
            )
        )

    def config_of(self, model: str, version: str = "") -> Any:
        """pb.model_config.ModelConfig of a READY version. NotFound, Unavailable."""
        entry = self._catalog.resolve(model, version)
        held = self._holdings[entry]
        return to_triton(entry.model, held.backend, held.policy, held.source.config)

    def model_config(self, message: bytes) -> bytes:
        request = parse(pb.inference.ModelConfigRequest, message)
        return _bytes(pb.inference.ModelConfigResponse(config=self.config_of(request.name, request.version)))

    async def statistics_of(self, model: str = "", version: str = "") -> Any:
        """pb.inference.ModelStatisticsResponse over all workers that are ready; empty names mean all. NotFound,
        Unavailable.
        """
        statistics.chosen(self._catalog, model, version)  # for its refusals
        if self._workers is None:
            tallies = [self.tallies(model, version)]
        else:
            tallies = await self._workers.ask("statistics", model=model, version=version)
        return statistics.to_triton(statistics.added(tallies))

    def tallies(self, model: str, version: str) -> list[statistics.Tally]:
        """What this worker has to say; nothing about what it does not serve."""
        try:
            entries = statistics.chosen(self._catalog, model, version)
        except (NotFound, Unavailable):
            return []
        return statistics.tallies(entries, self._holdings)

    async def model_statistics(self, message: bytes) -> bytes:
        request = parse(pb.inference.ModelStatisticsRequest, message)
        return _bytes(await self.statistics_of(request.name, request.version))

    def repository_index(self, message: bytes) -> bytes:
        """All versions, by name and number, each with state and reason; with `ready`, only those that serve."""
        request = parse(pb.inference.RepositoryIndexRequest, message)
        if request.repository_name:
            raise Unimplemented(
                f"repository_name: got {quoted(request.repository_name)}; "
                f"this server has one repository, leave the field empty"
            )
        index = pb.inference.RepositoryIndexResponse.ModelIndex
        return _bytes(
            pb.inference.RepositoryIndexResponse(
                models=[
                    index(name=entry.model, version=entry.version, state=entry.state.value, reason=entry.reason)
                    for model in self._catalog.models()
                    for entry in self._catalog.versions(model)
                    if entry.is_ready or not request.ready
                ]
            )
        )


def _bytes(message: object) -> bytes:
    serialized: bytes = message.SerializeToString()  # type: ignore[attr-defined]
    return serialized

"""Backend `triton`: a version that runs on other servers, over gRPC.

Loading asks the servers for the model's metadata, one after the other until one answers; what it says is the signature
from then on. Batches do not come here: a Carrier takes them, on the loop. `run` is for who has arrays and a thread:
warm-up and golden examples.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from gateway import pb
from gateway.backends.base import Array, Backend, Signature, TensorSpec
from gateway.backends.samples import find_samples
from gateway.backends.triton import blame, proof
from gateway.backends.triton.blame import Blame
from gateway.backends.triton.described import DECOUPLED, Described, describe
from gateway.backends.triton.link import ask, credentials, method, options_for
from gateway.backends.triton.resolve import addresses_of
from gateway.backends.warmup import cost_us
from gateway.config.model import ModelConfig
from gateway.config.triton import Triton, settings_of
from gateway.errors import BackendFailure, Code, ConfigError, InvalidArgument, LoadError, ServersDown, Unavailable
from gateway.native import signature as native_signature
from gateway.native.remote import AnswerMismatch, Form

IN_FLIGHT_PER_INSTANCE = 2
"""One that runs, and one that is there when it is done: the way there and back is then hidden."""
MAX_AUTO_IN_FLIGHT = 64
REMOTE_IN_FLIGHT = 1024
"""Requests at once on each server when it forms the batches."""
WARM_ROWS = (1, 8, 64)
"""More sizes would be more strain on a server that others use too."""

_log = logging.getLogger(__name__)


def load(path: Path, config: ModelConfig, *, model: str, version: str) -> TritonBackend:
    """The version in folder `path`. LoadError: one line that names the setting or the server, and the cure;
    ServersDown when nobody answered.
    """
    try:
        settings = settings_of(path, config.triton)
    except ConfigError as error:
        raise LoadError("; ".join(str(error).splitlines())) from None
    if not settings.endpoints and not settings.dns:
        raise LoadError(
            f'model "{model}" version {version}: no servers are named; set triton.endpoints: [HOST:PORT] or '
            f"triton.dns: NAME:PORT in model.yaml, or endpoints or dns in {path / 'triton.yaml'}"
        )
    settings.headers()  # for its faults
    addresses = {each.address: each.weight for each in settings.endpoints}
    if settings.dns:
        try:
            addresses = dict.fromkeys(addresses_of(settings.dns), 1.0)
        except OSError as error:
            raise ServersDown(f"triton.dns: {settings.dns}: {error.strerror or error}") from None
    if settings.shared_memory == "on" and config.batching.by == "remote":
        raise LoadError(
            f'model "{model}" version {version}: triton.shared_memory is on, and batching is remote, which passes '
            "requests on as they come; expected auto or off"
        )
    names = settings.model or model, version if settings.version is None else settings.version
    wish = config.batching.max_batch_size if config.batching.by == "gateway" else "auto"
    reasons = []
    for address in addresses:
        try:
            described = ask(address, settings, lambda channel: _describe(channel, address, names, settings, wish))  # noqa: B023 - called at once
        except grpc.RpcError as error:
            reasons.append(_reason(error, address, f'model "{model}" version {version}'))
            continue
        if settings.shared_memory == "on":
            _demand_sharing(model, version, described, addresses, settings)
        if described.is_decoupled:
            _log.info('model "%s" version %s: %s', model, version, DECOUPLED)
        return TritonBackend(model, version, config, settings, addresses, names, address, described)
    raise ServersDown(f"no Triton server has {names[0]!r} version {names[1] or 'any'}: {'; '.join(reasons)}")


def _demand_sharing(model: str, version: str, described: Described, addresses: Iterable[str], settings: Triton) -> None:
    """LoadError: shared memory is demanded, and cannot be had. Who does not answer now is asked when it does."""
    what = f'model "{model}" version {version}: triton.shared_memory is on, and'
    if described.is_decoupled or described.has_sequences:
        kind = "decoupled" if described.is_decoupled else "one that keeps sequences"
        raise LoadError(f"{what} the model is {kind}, whose requests are passed on as they come; expected auto or off")
    for address in addresses:
        reason = proof.where(address) or ask(address, settings, partial(_prove, settings=settings))
        if reason:
            raise LoadError(f"{what} Triton at {address} cannot: {reason}; expected auto or off, or the cure of that")


def _prove(channel: Any, settings: Triton) -> str:
    steps, answer, is_there = proof.prove(), None, True
    try:
        while True:
            name, fields = steps.send(answer)
            messages = pb.shared_memory if "SharedMemory" in name else pb.inference
            request = getattr(messages, f"{name}Request")(**fields)
            try:
                answer = method(channel, name)(request, timeout=settings.connect_s, metadata=settings.headers())
            except grpc.RpcError as error:
                is_there = is_there and error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )
                answer = error
    except StopIteration as stop:
        return str(stop.value) if is_there else ""
    finally:
        steps.close()


def _describe(channel: Any, address: str, names: tuple[str, str], settings: Triton, wish: int | str) -> Described:
    where = f"model {names[0]!r} on Triton at {address}"
    request, headers = {"name": names[0], "version": names[1]}, settings.headers()

    def call(name: str) -> Any:
        message = getattr(pb.inference, f"{name}Request")(**request)
        return method(channel, name)(message, timeout=settings.connect_s, metadata=headers)

    metadata, config = call("ModelMetadata"), None
    try:
        config = call("ModelConfig").config
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    return describe(metadata, config, wish, where)


def _reason(error: grpc.RpcError, address: str, title: str) -> str:
    failure = blame.of_status(error.code().value[0], error.details() or "", title, address, is_ours=True)
    if failure.blame is Blame.NETWORK:
        is_silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return f"{address} {'does not answer' if is_silent else blame.unreachable(error.details() or '')}"
    if failure.blame is Blame.GATEWAY:
        return str(failure)
    return f"{address}: {' '.join((error.details() or error.code().name).split())}"


class TritonBackend(Backend):
    """See Backend."""

    runs_elsewhere = True

    def __init__(
        self,
        model: str,
        version: str,
        config: ModelConfig,
        settings: Triton,
        addresses: dict[str, float],
        names: tuple[str, str],
        address: str,
        described: Described,
    ) -> None:
        self.title = f'model "{model}" version {version}'
        self.settings, self.addresses, self.names, self.described = settings, addresses, names, described
        self.signature: Signature = described.signature
        self.platform, self.kind = described.platform, described.backend
        self.forwards = config.batching.by == "remote" or described.has_sequences
        wish = config.batching.max_batch_size
        self.wish = wish if not self.forwards else "auto"
        self.max_batch_size = 0 if self.forwards else wish if isinstance(wish, int) else described.max_batch_size
        self.in_flight_each = self._in_flight_each()
        self.in_flight = self.in_flight_each * len(addresses)
        """At the start; a Remote knows how many servers there are now."""
        self.costs_us: list[tuple[int, float]] = []
        self.notes: list[str] = []
        self.native = _native(model, version, self.signature)
        self.form = Form(self.native, *names)
        self._address = address
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()
        self._shut_out = ""
        """Why nobody here will ever be answered there: the server wants other credentials."""

    def _in_flight_each(self) -> int:
        """Batches at once on each server."""
        if isinstance(self.settings.in_flight, int):
            return self.settings.in_flight
        if self.forwards:
            return REMOTE_IN_FLIGHT
        return min(IN_FLIGHT_PER_INSTANCE * self.described.instances, MAX_AUTO_IN_FLIGHT)

    def warm_up(self) -> None:
        if self.described.is_decoupled or self.described.has_sequences or not self.settings.warm_up:
            return
        rows = 1 if self.signature.batched else None
        samples, _, refusal = find_samples(self.run, self.signature.inputs, rows)
        if self._shut_out:
            self._close_channel()
            raise ServersDown(self._shut_out)
        if samples is None:
            self.notes.append(f"not warmed up, it refused made-up rows: {refusal}")
        else:
            most = self.max_batch_size or 1
            for size in WARM_ROWS if self.signature.batched and not self.forwards else (1,):
                if size > most:
                    break
                inputs = samples.make(size if self.signature.batched else None)
                try:
                    self.costs_us.append((size, cost_us(lambda: self.run(inputs), time.perf_counter)))  # noqa: B023
                except Exception as error:
                    self.notes.append(f"{size} made-up rows failed: {error}")
                    break
        for note in self.notes:
            _log.info("%s: %s", self.title, note)
        self._close_channel()

    def run(self, inputs: list[Array]) -> list[Array]:
        request = pb.inference.ModelInferRequest(model_name=self.names[0], model_version=self.names[1])
        for spec, array in zip(self.signature.inputs, inputs, strict=True):
            request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            request.raw_input_contents.append(_packed(spec, array))
        try:
            call = method(self._open_channel(), "ModelInfer")
            timeout_s = self.settings.attempt_s
            answer = call(request.SerializeToString(), timeout=timeout_s, metadata=self.settings.headers())
        except grpc.RpcError as error:
            failure = blame.of_status(error.code().value[0], error.details() or "", self.title, self._address)
            if failure.code == Code.INVALID_ARGUMENT:
                raise InvalidArgument(failure.text) from error
            if failure.blame is Blame.MODEL:
                raise BackendFailure(failure.text) from error
            if failure.blame is Blame.GATEWAY:
                self._shut_out = str(failure)
            raise Unavailable(failure.text) from error
        try:
            return [np.require(array, requirements=["C", "A"]) for array in self.form.answer(answer)]
        except AnswerMismatch as error:
            raise BackendFailure(f"{self.title} gave an answer that does not fit its signature") from error

    def close(self) -> None:
        self._close_channel()

    def _open_channel(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None:
                options, tls = options_for(self.settings), self.settings.tls
                if tls is not None:
                    self._channel = grpc.secure_channel(self._address, credentials(tls), options)
                else:
                    self._channel = grpc.insecure_channel(self._address, options)
            return self._channel

    def _close_channel(self) -> None:
        with self._lock, contextlib.suppress(Exception):
            if self._channel is not None:
                self._channel.close()
            self._channel = None


def _packed(spec: TensorSpec, array: Array) -> bytes:
    if spec.datatype != "BYTES":
        return array.tobytes()
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _native(model: str, version: str, signature: Signature) -> native_signature.Signature:
    inputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs]
    outputs = [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs]
    return native_signature.Signature(model, version, inputs, outputs, signature.batched)

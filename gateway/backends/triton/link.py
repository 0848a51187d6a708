"""Channels to servers: one for each address and TLS setting in a worker, shared by all versions that run there.

Messages go as bytes, both ways: who writes and reads them is native. `generation` counts how often the connection was
lost, so that what was found out over an earlier one is known to be old. Affinity: owning loop, but for `ask`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from gateway import pb
from gateway.backends.triton.described import Described, describe
from gateway.config.triton import Tls, Triton
from gateway.errors import LoadError

SERVICE = "/inference.GRPCInferenceService/"

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),  # ours know the other servers, and count
    ("grpc.use_local_subchannel_pool", 1),
)
"""A server that comes back is found within a second; by default it would take up to two minutes."""


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """LoadError: a file of it cannot be read."""

    def content(path: Any) -> bytes | None:
        if path is None:
            return None
        try:
            return bytes(path.read_bytes())
        except OSError as error:
            raise LoadError(f"triton.tls: {path}: cannot be read: {error.strerror}") from None

    return grpc.ssl_channel_credentials(content(tls.ca), content(tls.key), content(tls.cert))


def options_for(settings: Triton) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [*OPTIONS]
    tls = settings.tls
    name = tls and (tls.server_name or (settings.dns and settings.dns.rpartition(":")[0].strip("[]")))
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return options


def method(channel: Any, name: str) -> Any:
    """A unary call with messages of pb.inference, or pb.shared_memory; ModelInfer takes and gives bytes."""
    if name == "ModelInfer":
        return channel.unary_unary(SERVICE + name)
    messages = pb.shared_memory if "SharedMemory" in name else pb.inference
    request, response = (getattr(messages, f"{name}{kind}") for kind in ("Request", "Response"))
    return channel.unary_unary(
        SERVICE + name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )


class Link:
    """One channel to one server."""

    def __init__(self, address: str, settings: Triton) -> None:
        options = options_for(settings)
        if settings.tls is not None:
            self._channel = grpc.aio.secure_channel(address, credentials(settings.tls), options)
        else:
            self._channel = grpc.aio.insecure_channel(address, options)
        self.address = address
        self.generation = 0
        self.infer = method(self._channel, "ModelInfer")
        self.stream: Any = self._channel.stream_stream(SERVICE + "ModelStreamInfer")
        self._ready, self._metadata, self._config = (
            method(self._channel, name) for name in ("ModelReady", "ModelMetadata", "ModelConfig")
        )
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    @property
    def channel(self) -> grpc.aio.Channel:
        return self._channel

    async def is_ready(self, model: str, version: str, timeout_s: float, headers: Any) -> bool:
        """RpcError."""
        request = pb.inference.ModelReadyRequest(name=model, version=version)
        return bool((await self._ready(request, timeout=timeout_s, metadata=headers)).ready)

    async def describe(self, model: str, version: str, wish: int | str, timeout_s: float, headers: Any) -> Described:
        """RpcError; LoadError."""
        where = f"model {model!r} on Triton at {self.address}"
        request = pb.inference.ModelMetadataRequest(name=model, version=version)
        metadata = await self._metadata(request, timeout=timeout_s, metadata=headers)
        config = None
        try:
            request = pb.inference.ModelConfigRequest(name=model, version=version)
            config = (await self._config(request, timeout=timeout_s, metadata=headers)).config
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
        return describe(metadata, config, wish, where)

    async def call(self, name: str, fields: Mapping[str, Any], timeout_s: float, headers: Any) -> Any:
        """Any other unary one, by its name. RpcError."""
        messages = pb.shared_memory if "SharedMemory" in name else pb.inference
        request = getattr(messages, f"{name}Request")(**fields)
        return await method(self._channel, name)(request, timeout=timeout_s, metadata=headers)

    async def _watch(self) -> None:
        state = self._channel.get_state()
        while state is not grpc.ChannelConnectivity.SHUTDOWN:
            await self._channel.wait_for_state_change(state)
            now = self._channel.get_state()
            if state is grpc.ChannelConnectivity.READY:
                self.generation += 1
            state = now

    async def close(self) -> None:
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        await self._channel.close()


class Links:
    """Of one worker. A link lives as long as somebody holds it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[Link, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, address: str, settings: Triton) -> Link:
        key = self._key(address, settings)
        link, holders = self._held.get(key) or (Link(address, settings), 0)
        self._held[key] = link, holders + 1
        return link

    def give_back(self, link: Link, settings: Triton) -> None:
        key = self._key(link.address, settings)
        _, holders = self._held[key]
        if holders > 1:
            self._held[key] = link, holders - 1
            return
        del self._held[key]
        task = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @staticmethod
    def _key(address: str, settings: Triton) -> tuple[str, str]:
        tls = settings.tls.model_dump_json() if settings.tls else ""
        return address, f"{tls} {settings.dns or ''}" if tls else ""


def ask(address: str, settings: Triton, work: Callable[[grpc.Channel], Any]) -> Any:
    """work(channel) over a connection of its own, in a thread that loads. RpcError."""
    options = options_for(settings)
    if settings.tls is not None:
        channel = grpc.secure_channel(address, credentials(settings.tls), options)
    else:
        channel = grpc.insecure_channel(address, options)
    with channel:
        return work(channel)

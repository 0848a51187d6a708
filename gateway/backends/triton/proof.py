"""Whether a server sees the shared memory of this machine: asked, and not believed before it has been right twice.

A region under a name that nobody can guess is registered before it exists, which has to fail, and again when it does,
which has to succeed, as the server opens it to do that. A server of another machine behind a tunnel, or in a container
with a /dev/shm of its own, fails the second; one that says yes to everything, the first. What it then writes is looked
at in every answer (native.parcel). Steps are yielded, so that who loads in a thread and who runs on a loop ask alike.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Generator
from typing import Any

import grpc

from gateway.backends.triton.segments import PREFIX, Segment, is_left, new_name
from gateway.config.triton import split_address

Asks = Generator[tuple[str, dict[str, Any]], Any, str]
"""Yields (call, fields of its request), is sent the answer or the RpcError, and returns why not, or ""."""

PROBE_BYTES = 4096
EXTENSION = "system_shared_memory"
LEAST_VERSION = (2, 51)
"""Before, a server unmaps a region that it is asked to forget although a request still looks into it, and dies; one
version refuses forever. Since then it refuses, or waits, until the last such request has ended.
"""


def prove() -> Asks:
    metadata = yield "ServerMetadata", {}
    if isinstance(metadata, grpc.RpcError):
        return f"it does not say what it is: {_words(metadata)}"
    version = re.match(r"(\d+)\.(\d+)", metadata.version)
    if metadata.name != "triton" or version is None:
        return f"it is {metadata.name or 'nameless'} {metadata.version}, and shared memory is Triton's"
    if EXTENSION not in metadata.extensions:
        return f"it has no extension {EXTENSION}"
    if (int(version[1]), int(version[2])) < LEAST_VERSION:
        return f"it is {metadata.version}, and takes 2.51 to say when it is done with a region"
    absent = new_name()
    answer = yield _register(absent, PROBE_BYTES)
    if not isinstance(answer, grpc.RpcError):
        yield "SystemSharedMemoryUnregister", {"name": absent}
        return "it says that it has opened a region that does not exist"
    if answer.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        return f"it does not register regions: {_words(answer)}"
    try:
        segment = Segment(PROBE_BYTES)
    except OSError as error:
        return f"this process cannot make shared memory: {error.strerror or error}"
    try:
        answer = yield _register(segment.name, PROBE_BYTES)
        if isinstance(answer, grpc.RpcError):
            return (
                f"it does not see the shared memory of this process, or may not: {_words(answer)} (it runs as this "
                "user or as root; in a container it needs the host's IPC namespace, or its /dev/shm)"
            )
        status = yield "SystemSharedMemoryStatus", {"name": segment.name}
        if isinstance(status, grpc.RpcError):
            return f"it does not say what regions it has: {_words(status)}"
        told = status.regions.get(segment.name)
        if told is None or (told.key.lstrip("/"), told.offset, told.byte_size) != (segment.name, 0, PROBE_BYTES):
            return "it says something else of a region than it was told"
        yield "SystemSharedMemoryUnregister", {"name": segment.name}
    finally:
        segment.unlink()
    return ""


def sweep() -> Asks:
    """Has it forget the regions of workers that were killed. It must have proved that it sees what we see."""
    status = yield "SystemSharedMemoryStatus", {}
    if not isinstance(status, grpc.RpcError):
        for name in [*status.regions]:
            if name.startswith(PREFIX) and is_left(name):
                yield "SystemSharedMemoryUnregister", {"name": name}
    return ""


def where(address: str) -> str:
    """Why a server there is not on this machine; "" when it is. Blocks."""
    if sys.platform != "linux":
        return "shared memory is for Linux here"
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        return f"{host}: {error.strerror or error}"
    for family, kind, protocol, _, sockaddr in found:
        if not _is_own(family, kind, protocol, sockaddr):
            return f"{sockaddr[0]} is no address of this machine"
    return ""


def _is_own(family: int, kind: int, protocol: int, sockaddr: Any) -> bool:
    """A socket can be bound to the machine's own addresses and to no other."""
    try:
        with socket.socket(family, kind, protocol) as sock:
            sock.bind((sockaddr[0], 0, *sockaddr[2:]))
    except OSError:
        return False
    return True


def _register(name: str, size: int) -> tuple[str, dict[str, Any]]:
    return "SystemSharedMemoryRegister", {"name": name, "key": f"/{name}", "byte_size": size}


def _words(error: grpc.RpcError) -> str:
    return " ".join((error.details() or error.code().name).split())[:200]

"""A server of the Open Inference Protocol as commands talk to it: one question at a time, over grpcio.

What can go wrong is said in a line: the address, nobody there, too slow, and what the server itself says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.failure import Refused

if TYPE_CHECKING:
    from gateway.cli.tensors import Array, Model

MAX_AUTO_ROWS = 1024
AUTO_REQUEST_BYTES = 4 * 2**20
"""Where nobody says how many, a request holds as many rows as fit into this: gRPC servers accept 4 MiB unless told
otherwise.
"""


class OipServer:
    """Behind an open channel; `flag` is how the address is named to a person."""

    def __init__(self, channel: Any, url: str, flag: str, timeout_s: float, timeout_flag: str = "") -> None:
        from gateway import pb

        self._pb = pb.inference
        self._channel, self._url, self._flag, self._timeout_s = channel, url, flag, timeout_s
        self._patience = f"{timeout_flag} {timeout_s:g}" if timeout_flag else f"after {timeout_s:g} s"

    def __str__(self) -> str:
        return f"server at {self._url} ({self._flag})"

    def call(self, method: str, request: Any) -> Any:
        """The response, or Refused with the server's code and text."""
        import grpc

        call = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(self._pb, f"{method}Response").FromString,
        )
        try:
            return call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or "(no text)"
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                details += f" ({self._patience})"
            if code is grpc.StatusCode.UNAVAILABLE and "Failed parsing HTTP/2" in details:
                raise Refused(f"{self} speaks no gRPC without TLS: is it a gateway's gRPC port (8001)?") from None
            if code is grpc.StatusCode.UNAVAILABLE and "Socket closed" in details:
                details += "; does it want TLS (gateway predict --tls-ca FILE)?"
            raise Refused(f"{self} answered {method} with {code.name}: {details}") from None


@contextmanager
def opened(url: str, flag: str, tls_ca: Path | None, timeout_s: float, timeout_flag: str = "") -> Iterator[OipServer]:
    """Refused when nobody answers: found out by a plain connect, which fails at once and says why."""
    import socket

    from gateway.errors import ConfigError

    host, colon, port = url.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in url:
        raise ConfigError(f"{flag}: got {url!r}, expected HOST:PORT such as 127.0.0.1:8001")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except socket.gaierror as error:
        raise Refused(f"{url} ({flag}): host {host!r}: {error.strerror}") from None
    except TimeoutError:
        raise Refused(
            f"no answer from {url} ({flag}) within {timeout_s:g} s" + (timeout_flag and f" ({timeout_flag})")
        ) from None
    except OSError:
        raise Refused(f"nothing answers at {url} ({flag}): start one with make serve") from None
    import grpc

    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),  # the address says where to go; a proxy of the environment is for the web
    ]
    if tls_ca is None:
        channel = grpc.insecure_channel(url, options)
    else:
        try:
            authority = tls_ca.read_bytes()
        except OSError as error:
            raise ConfigError(f"--tls-ca {tls_ca}: {str(error.strerror).lower()}") from None
        channel = grpc.secure_channel(url, grpc.ssl_channel_credentials(authority), options)
    try:
        yield OipServer(channel, url, flag, timeout_s, timeout_flag)
    finally:
        channel.close()


def parts(arrays: dict[str, Array], model: Model, batch: int | None) -> Iterator[dict[str, Array]]:
    """The rows in pieces of one request each; a model without rows is one piece."""
    n_rows = min((len(array) for array in arrays.values()), default=0) if model.has_rows else 0
    if not n_rows:
        yield arrays
        return
    if batch is None:
        row_bytes = sum(array.nbytes for array in arrays.values()) // n_rows
        batch = max(1, min(MAX_AUTO_ROWS, AUTO_REQUEST_BYTES // max(row_bytes, 1)))
    for start in range(0, n_rows, batch):
        yield {name: array[start : start + batch] for name, array in arrays.items()}


def infer_request(name: str, version: str, arrays: dict[str, Array], model: Model) -> Any:
    """A ModelInferRequest with raw contents."""
    from gateway import pb
    from gateway.cli.tensors import encode

    request = pb.inference.ModelInferRequest(model_name=name, model_version=version)
    for each in model.inputs:
        array = arrays[each.name]
        request.inputs.add(name=each.name, datatype=each.datatype, shape=array.shape)
        request.raw_input_contents.append(encode(array, each.datatype))
    return request

"""REST as tests speak it: a plain client on http.client, and raw sockets with a parser of their own."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.oip import Array, Bits, datatype_of, packed, unpacked

LENGTH = "Inference-Header-Content-Length"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class RestClient:
    """One keep-alive connection."""

    def __init__(self, url: str, timeout_s: float = 40) -> None:
        self.connection = http.client.HTTPConnection(url, timeout=timeout_s)

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A dict or list goes as JSON; header names may have _ for -."""
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def infer(self, model: str, body: Any, **headers: str) -> Answer:
        return self.post(f"/v2/models/{model}/infer", body, **headers)


def tensor(name: str, datatype: str, shape: list[int], data: Any = None, **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **({} if data is None else {"data": data}), **fields}


def one(
    datatype: str = "FP32", shape: Iterable[int] = (1, 4), data: Any = (1, 2, 3, 4), **fields: Any
) -> dict[str, Any]:
    """A request for a model with the one input x."""
    return {"inputs": [tensor("x", datatype, list(shape), list(data))], **fields}


def binary_body(
    inputs: dict[str, Array | Bits], outputs: list[dict[str, Any]] | None = None, **fields: Any
) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a request with all inputs binary and, unless `outputs` says otherwise, all outputs too."""
    tensors, tail = [], b""
    for name, values in inputs.items():
        raw = packed(values)
        shape = (values.values if isinstance(values, Bits) else values).shape
        parameters = {"binary_data_size": len(raw)}
        tensors.append({"name": name, "datatype": datatype_of(values), "shape": shape, "parameters": parameters})
        tail += raw
    document: dict[str, Any] = {"inputs": tensors, **fields}
    if outputs is None:
        document["parameters"] = {"binary_data_output": True, **fields.get("parameters", {})}
    else:
        document["outputs"] = outputs
    head = json.dumps(document).encode()
    return head + tail, {LENGTH: str(len(head))}


def arrays_of(answer: Answer) -> dict[str, Array]:
    """Outputs by name, from JSON and binary data alike."""
    assert answer.status == 200, answer.body
    length = answer.headers.get(LENGTH.lower())
    head, tail = (answer.body, b"") if length is None else (answer.body[: int(length)], answer.body[int(length) :])
    found = {}
    for output in json.loads(head)["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            raw, tail = tail[:size], tail[size:]
        elif output["datatype"] == "BYTES":
            raw = packed(np.array(output["data"], object))
        else:
            raw = np.array(output["data"], unpacked(b"", output["datatype"], [0]).dtype).tobytes()
        found[output["name"]] = unpacked(raw, output["datatype"], output["shape"])
    assert not tail
    return found


# --- raw sockets


def http_request(
    path: str, body: bytes | None = None, method: str = "", head: Iterable[str] = (), version: str = "1.1"
) -> bytes:
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/{version}", "Host: test", *head]
    if body is not None and not any(line.lower().startswith(("content-length", "transfer-")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@dataclass
class RawConnection:
    url: str
    timeout_s: float = 40
    is_closed: bool = False
    """The server has ended it."""
    _rest: bytes = b""
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        host, _, port = self.url.partition(":")
        self.socket = socket.create_connection((host, int(port)), self.timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._rest += data
        self.is_closed = not data
        return bool(data)

    def line(self) -> str:
        while b"\r\n" not in self._rest:
            assert self._more(), f"closed after {self._rest!r}"
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line.decode("latin-1")

    def answer(self, is_head: bool = False) -> Answer:
        """The next one, interim answers included."""
        status = int(self.line().split()[1])
        headers: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        n = 0 if is_head or status == 100 else int(headers["content-length"])
        while len(self._rest) < n:
            assert self._more(), "closed inside a body"
        body, self._rest = self._rest[:n], self._rest[n:]
        return Answer(status, headers, body)

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def is_ended(self) -> bool:
        """Waits for the server to end the connection, with nothing more said."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            return not self._rest
        return not self._rest

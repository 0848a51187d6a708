"""POST .../infer: JSON, JSON and binary, or binary alone, into the lanes that gRPC requests use; and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from gateway.backends.base import DATATYPES
from gateway.errors import GatewayError, InvalidArgument, Unimplemented
from gateway.native.exchange import decode_answer, encode_request
from gateway.native.jsonanswer import json_of_answer
from gateway.native.jsonrequest import request_from_json
from gateway.serving.catalog import Catalog
from gateway.serving.rest import binarytensors, classification, document, encoding, jsontensors
from gateway.serving.rest.binarytensors import Tail
from gateway.serving.rest.classification import Labels
from gateway.serving.rest.errors import STATUS_OF_CODE, HttpError
from gateway.serving.rest.message import BINARY, JSON, Buffer, Request
from gateway.serving.wording import quoted

FAILED = "the gateway failed on this request"

_LENGTH = b"Inference-Header-Content-Length: "
_DUMP = orjson.OPT_SERIALIZE_NUMPY
_DATATYPES = frozenset(DATATYPES)
_SHARED_MEMORY = "shared_memory_region"
_OWN_PARAMETERS = frozenset({"binary_data_output", "priority", "timeout"})


class Wishes:
    """How the outputs are to come back: `binary` for those that are not named, (binary, top N) for those that are."""

    __slots__ = ("binary", "of_output")

    def __init__(self, binary: bool) -> None:
        self.binary = binary
        self.of_output: dict[str, tuple[bool, int]] = {}


_PLAIN = Wishes(False)
_RAW = Wishes(True)

Headers = list[tuple[str, str]]

Submit = Callable[[Any, Callable[[Any, int, str], None], int, bytes | None, Headers | None, dict[bytes, bytes]], Any]
"""(request body, done(answer or None, code, text), deadline, traceparent, forwarded, all headers) -> exchange with
cancel().
"""


class Infer:
    """The handler; `submit` is the hub's. `report(error)` takes failures for the log."""

    is_infer = True
    """What it refuses is counted as a request for its model."""

    def __init__(
        self,
        submit: Submit,
        catalog: Catalog,
        labels: Labels,
        max_message_bytes: int,
        max_json_bytes: int,
        report: Callable[[BaseException], None],
        forward_pattern: re.Pattern[str] | None = None,
    ) -> None:
        self._forward_pattern = forward_pattern
        self._submit, self._catalog, self._labels, self._report = submit, catalog, labels, report
        self._max_message_bytes, self._max_json_bytes = max_message_bytes, max_json_bytes

    def __call__(self, request: Request) -> None:
        args, fields, body = request.args, request.fields, request.body
        model, version = args if len(args) > 1 else (args[0], "")
        if b"content-encoding" in fields:
            body = encoding.decompress(body, fields[b"content-encoding"], self._max_message_bytes)
        field = fields.get(b"inference-header-content-length")
        tail = None
        if field is not None:
            n_json = binarytensors.json_length(field, len(body))
            if n_json == 0:
                self._send_raw(request, model, version, body)
                return
            tail = Tail(body, n_json)
            body = memoryview(body)[:n_json]
        if len(body) > self._max_json_bytes:
            raise HttpError(
                413,
                f"body: got {len(body)} bytes of JSON, expected at most {self._max_json_bytes} "
                f"(limits.max_json_bytes); send large tensors as binary data",
            )
        if tail is None:
            plain = request_from_json(body, model, version)
            if plain is not None:
                message, request.id = plain
                self._send(request, _PLAIN, message)
                return
        self.read_document(request, model, version, body, tail)

    def read_document(self, request: Request, model: str, version: str, text: Buffer, tail: Tail | None) -> None:
        """All that a request can say, and the words for what is wrong with it."""
        request_json = document.load_object(text)
        if "id" in request_json:
            request.id = document.optional(request_json, "", "id", str)
        binary, priority, timeout_us = False, 0, 0
        others: list[tuple[str, str | bool | int | float]] = []
        if "parameters" in request_json:
            parameters = document.optional(request_json, "", "parameters", dict)
            binary = document.optional(parameters, "parameters.", "binary_data_output", bool) or False
            priority = document.count(parameters, "parameters.", "priority") or 0
            timeout_us = document.count(parameters, "parameters.", "timeout") or 0
            if timeout_us >= 2**63:
                raise InvalidArgument(f"parameters.timeout: got {timeout_us}, expected less than {2**63} microseconds")
            others = [pair for pair in parameters.items() if pair[0] not in _OWN_PARAMETERS and _fits(pair[1])]
        inputs = []
        for i, tensor in enumerate(document.required(request_json, "", "inputs", list)):
            inputs.append(_input(tensor, f"inputs[{i}]", tail))
        if tail is not None:
            tail.finish()
        if "outputs" in request_json:
            wishes = Wishes(binary)
            for i, output in enumerate(document.optional(request_json, "", "outputs", list)):
                _output(output, f"outputs[{i}]", wishes)
            names = list(wishes.of_output)
        else:
            wishes, names = (_RAW if binary else _PLAIN), []
        self._send(
            request, wishes, encode_request(model, version, request.id, inputs, names, priority, timeout_us, others)
        )

    def _send_raw(self, request: Request, model: str, version: str, body: Any) -> None:
        signature = self._catalog.resolve(model, version).signature
        assert signature is not None  # it is READY
        tensor = binarytensors.raw_input(signature, body)
        self._send(request, _RAW, encode_request(model, version, "", [tensor], []))

    def _send(self, request: Request, wishes: Wishes, body: Any) -> None:
        fields = request.fields
        forwarded = self._forwarded(fields) if self._forward_pattern else None
        done = partial(self._done, request, wishes)
        exchange = self._submit(body, done, 0, fields.get(b"traceparent"), forwarded, fields)
        if request.answer is None:
            request.cancel = exchange.cancel

    def _forwarded(self, fields: dict[bytes, bytes]) -> Headers:
        """Headers that the deployment takes for parameters."""
        assert self._forward_pattern
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields.items()]
        return [header for header in named if self._forward_pattern.fullmatch(header[0])]

    def _done(self, request: Request, wishes: Wishes, answer: Any, code: int, text: str) -> None:
        """From the native side, which takes no exception."""
        try:
            if answer is None:
                request.fail(STATUS_OF_CODE.get(code, 500), text)
                return
            written = json_of_answer(answer) if wishes is _PLAIN else None
            if written is None:
                self._respond(request, wishes, answer)
            elif b"accept-encoding" in request.fields:
                self._respond_with(request, written, [])
            else:
                request.respond(written)
        except GatewayError as error:
            request.refuse(error)
        except Exception as error:
            self._report(error)
            request.fail(500, FAILED)

    def _respond(self, request: Request, wishes: Wishes, answer: Any) -> None:
        model, version, request_id, tensors, parameters = decode_answer(answer)
        head: dict[str, Any] = {"model_name": model, "model_version": version}
        if request_id:
            head["id"] = request_id
        if parameters:
            head["parameters"] = parameters
        outputs: list[dict[str, Any]] = []
        head["outputs"] = outputs
        raws: list[memoryview] = []
        is_binary = wishes.binary
        of_output = wishes.of_output
        for name, datatype, shape, raw in tensors:
            n_top = 0
            if of_output:
                is_binary, n_top = of_output[name]
            texts = None
            if n_top:
                shape, texts = self._classify(model, version, name, datatype, shape, raw, n_top)
                datatype = "BYTES"
                if is_binary:
                    raw = memoryview(classification.packed(texts))
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
            if is_binary:
                output["parameters"] = {"binary_data_size": raw.nbytes}
                raws.append(raw)
            else:
                output["data"] = jsontensors.decode(name, datatype, raw) if texts is None else texts
            outputs.append(output)
        text = orjson.dumps(head, option=_DUMP)
        if b"null" in text:  # NaN or an infinity, or a name that looks so
            for output in outputs:
                if "data" in output:
                    output["data"] = jsontensors.with_special_values(output["data"])
            text = orjson.dumps(head, option=_DUMP)
        self._respond_with(request, text, raws)

    def _respond_with(self, request: Request, text: bytes, raws: list[memoryview]) -> None:
        """Compressed, when the caller has it so."""
        headers = b"%b%b%d\r\n" % (BINARY, _LENGTH, len(text)) if raws else JSON
        accept = request.fields.get(b"accept-encoding")
        if accept is not None:
            n = len(text) + sum([raw.nbytes for raw in raws])
            if encoding.MIN_COMPRESSED_BYTES <= n <= encoding.MAX_COMPRESSED_BYTES:
                coding = encoding.chosen_coding(accept, bool(raws))
                if coding:
                    headers += b"Content-Encoding: %b\r\nVary: Accept-Encoding\r\n" % coding
                    text, raws = encoding.compress(text, raws, coding), []
        request.respond(text, 200, headers, raws)

    def _classify(
        self, model: str, version: str, name: str, datatype: str, shape: list[int], raw: memoryview, n_top: int
    ) -> tuple[list[int], list[str]]:
        entries = {entry.version: entry for entry in self._catalog.versions(model)}
        signature = entries[version].signature if version in entries else None
        batched = signature.batched if signature is not None else len(shape) > 1
        labels = self._labels.of(model, version, name)
        return classification.classify(name, datatype, shape, raw, n_top, batched, labels)


def _fits(value: Any) -> bool:
    """Whether a parameter can be one of ModelInferRequest, and so be seen by the model's route."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) in (str, bool, float)


def _input(tensor: Any, path: str, tail: Tail | None) -> tuple[str, str, list[int], Any]:
    if type(tensor) is not dict:
        raise InvalidArgument(f"{path}: expected an object with name, shape, datatype and data")
    path += "."
    name = document.required(tensor, path, "name", str)
    datatype = document.required(tensor, path, "datatype", str)
    if datatype not in _DATATYPES:
        raise InvalidArgument(
            f"{path}datatype: got {quoted(datatype)}, expected one of {', '.join(sorted(_DATATYPES))}"
        )
    shape = document.shape_of(tensor, path)
    n_binary = None
    if "parameters" in tensor:
        parameters = document.optional(tensor, path, "parameters", dict)
        if _SHARED_MEMORY in parameters:
            raise Unimplemented(f"{path}parameters.{_SHARED_MEMORY}: shared memory is not offered here, send the data")
        n_binary = document.count(parameters, path + "parameters.", "binary_data_size")
    if n_binary is not None:
        if "data" in tensor:
            raise InvalidArgument(f"{path}data: came together with binary_data_size, expected one of the two")
        if tail is None:
            raise InvalidArgument(
                f"{path}parameters.binary_data_size: came without the header Inference-Header-Content-Length"
            )
        return name, datatype, shape, tail.take(path + "parameters.", n_binary)
    if "data" not in tensor:
        raise InvalidArgument(f"{path}data: missing, expected a list of values, or parameters.binary_data_size")
    return name, datatype, shape, jsontensors.encode(path + "data", datatype, shape, tensor["data"])


def _output(output: Any, path: str, wishes: Wishes) -> None:
    if type(output) is not dict:
        raise InvalidArgument(f"{path}: expected an object with name")
    path += "."
    name = document.required(output, path, "name", str)
    if name in wishes.of_output:
        raise InvalidArgument(f"{path}name: {quoted(name)} is asked for twice, expected once")
    binary, n_top = wishes.binary, 0
    if "parameters" in output:
        parameters = document.optional(output, path, "parameters", dict)
        if _SHARED_MEMORY in parameters:
            raise Unimplemented(f"{path}parameters.{_SHARED_MEMORY}: shared memory is not offered here")
        own = document.optional(parameters, path + "parameters.", "binary_data", bool)
        binary = binary if own is None else own
        n_top = document.count(parameters, path + "parameters.", "classification") or 0
    wishes.of_output[name] = binary, n_top

"""Infer requests in JSON: the slow reading of one, and random ones that are mostly right."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any, cast

from gateway.errors import GatewayError
from gateway.serving.rest import infer, jsontensors
from gateway.serving.rest.message import Request

DATATYPES = ["FP32", "FP32", "FP64", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES"]


def read_by_python(text: bytes, model: str, version: str) -> tuple[bytes, str] | None:
    """What the handler makes of it without the native reader: (message, id); None when it refuses it, or when its
    answer is not to be plain JSON.
    """
    sent: list[tuple[bytes, str]] = []

    class Handler(infer.Infer):
        def _send(self, request: Request, wishes: infer.Wishes, body: Any) -> None:
            if not wishes.binary and not any(binary or n_top for binary, n_top in wishes.of_output.values()):
                sent.append((bytes(body), request.id))

    handler = Handler(cast(Any, None), cast(Any, None), cast(Any, None), 1 << 30, 1 << 30, print)
    request = Request(cast(Any, SimpleNamespace()), handler, (model, version))
    try:
        handler.read_document(request, model, version, text, None)
    except GatewayError:
        return None
    return sent[0] if sent else None


def written_by_python(answer: Any) -> bytes:
    """The text of an answer without the native writer."""
    texts: list[bytes] = []

    class Handler(infer.Infer):
        def _respond_with(self, request: Request, text: bytes, raws: list[memoryview]) -> None:
            texts.append(text)

    handler = Handler(cast(Any, None), cast(Any, None), cast(Any, None), 1 << 30, 1 << 30, print)
    handler._respond(Request(cast(Any, None), handler, ("m",)), infer.Wishes(False), answer)
    return texts[0]


def pack(texts: list[str]) -> bytes:
    """A packed BYTES tensor."""
    return jsontensors.pack([text.encode() for text in texts])


def some_text(dice: random.Random) -> bytes:
    """A request, sometimes with an accident."""
    request: dict[str, Any] = {"inputs": [_some_input(dice, i) for i in range(dice.choice([1, 1, 1, 2, 3]))]}
    if dice.random() < 0.3:
        request["id"] = _some_string(dice)
    if dice.random() < 0.3:
        request["outputs"] = [{"name": _some_string(dice)} for _ in range(dice.randrange(3))]
        if request["outputs"] and dice.random() < 0.3:
            request["outputs"][0]["parameters"] = dice.choice([{}, {"binary_data": False}, {"classification": 2}])
    if dice.random() < 0.3:
        request["parameters"] = {
            dice.choice(["priority", "timeout", "binary_data_output", "a", "b"]): dice.choice(
                [0, 1, -1, 2**62, 2**63, 2**64, True, False, "text", 1.5, None, {}]
            )
            for _ in range(dice.randrange(4))
        }
    if dice.random() < 0.05:
        request[dice.choice(["x", "inputs ", ""])] = dice.choice([1, None, [], {"a": ":"}])
    keys = list(request)
    dice.shuffle(keys)
    text = json.dumps(
        {key: request[key] for key in keys},
        separators=dice.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")]),
        ensure_ascii=dice.random() < 0.3,
    ).encode("utf-8", "surrogatepass")
    return _accident(dice, text) if dice.random() < 0.3 else text


def _some_input(dice: random.Random, i: int) -> dict[str, Any]:
    datatype = dice.choice(DATATYPES)
    shape = [dice.choice([0, 1, 1, 2, 3, 5]) for _ in range(dice.choice([0, 1, 1, 2, 2, 3]))]
    n = 1
    for size in shape:
        n *= size
    data: list[Any] = [_some_value(dice, datatype) for _ in range(n)]
    if dice.random() < 0.5:
        for size in reversed(shape[1:]):
            data = [data[at : at + size] for at in range(0, len(data), size)] if size else data
    if dice.random() < 0.05:
        data = data + data[:1] if dice.random() < 0.5 else data[1:]
    fields = list({"name": f"x{i}", "datatype": datatype, "shape": shape, "data": data}.items())
    dice.shuffle(fields)
    return dict(fields)


def _some_value(dice: random.Random, datatype: str) -> Any:
    if datatype == "BOOL":
        return dice.random() < 0.5
    if datatype == "BYTES":
        return _some_string(dice)
    if "INT" in datatype:
        bits = int(datatype.removeprefix("U").removeprefix("INT"))
        low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return dice.choice([low, high, dice.randint(low, high), dice.randint(low, high), 0, 1]) + (dice.random() < 0.01)
    kind = dice.randrange(7)
    if kind == 0:
        return dice.choice([0, -0.0, 1, -1, 16777217, 2**53 + 1, 2**63, 2**64 + 1, -(2**63) - 1, 0.1, 1e-45, 3.4e38])
    if kind == 1:
        return dice.uniform(-1, 1) * 10.0 ** dice.randrange(-50, 38)
    if kind == 2:
        return dice.choice([1e39, -1e39, 5e-324, 1e308]) if dice.random() < 0.2 else dice.randrange(-1000, 1000)
    return round(dice.gauss(0, 10), dice.randrange(18))


def _some_string(dice: random.Random) -> str:
    return dice.choice(["", "y", "a b", "]", '"', "\\", "Füße 語 😀", "\n", "\x7f", "z" * 200, "[1,{2}]:", "NaN"])


def _accident(dice: random.Random, text: bytes) -> bytes:
    at = dice.randrange(len(text) + 1)
    kind = dice.randrange(5)
    if kind == 0:
        return text[:at]
    if kind == 1:
        return (
            text[:at]
            + dice.choice([b",", b"]", b"[", b'"', b"0", b"-", b".", b"e", b" ", b"\\", b"\xff", b"\0"])
            + text[at:]
        )
    if kind == 2:
        return text[:at] + text[at + 1 :]
    if kind == 3:
        other = dice.randrange(len(text) + 1)
        return text[: min(at, other)] + text[max(at, other) :]
    return text.replace(
        *dice.choice([(b"1", b"01"), (b".", b""), (b"0", b"-0"), (b"[", b"[["), (b'"name"', b'"data"'), (b"e-", b"e+")])
    )

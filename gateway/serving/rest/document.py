"""The JSON of an infer request, read strictly: every refusal names the field by its path.

orjson is quick and takes the last of two equal keys. Which one a sender meant nobody knows, so equal keys are refused:
colons outside strings are as many as keys, which costs one count over the text, and nothing per element.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from gateway.errors import InvalidArgument
from gateway.serving.rest.message import Buffer
from gateway.serving.wording import quoted

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BARE = re.compile(r"-?(NaN|Infinity|Inf|nan|inf)")
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a whole number",
}
_GOT: dict[type, str] = {float: "a number with a fraction", type(None): "null", **_KINDS}

MAX_UINT64 = 2**64 - 1


def load_object(text: Buffer, what: str = "body") -> dict[str, Any]:
    """The JSON object that `text` is. InvalidArgument: no JSON, no object, or a key twice."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(_complaint(error, what)) from None
    if type(value) is not dict:
        raise InvalidArgument(f"{what}: got {_GOT[type(value)]}, expected a JSON object")
    flat = bytes(text) if isinstance(text, memoryview) else text
    if flat.count(b":") != _count_keys_of_request(value) and (
        b"".join(_STRING.split(flat)).count(b":") != count_keys(value)
    ):
        raise InvalidArgument(f"{what}: {_name_duplicate(flat)}, expected each key once in an object")
    return value


def _complaint(error: orjson.JSONDecodeError, what: str) -> str:
    at = error.pos - (error.doc[error.pos - 1 : error.pos] == "-")  # it stands behind the sign
    bare = _BARE.match(error.doc, max(at, 0), max(at, 0) + 10)
    if bare:
        word = {"nan": "NaN", "inf": "Infinity"}.get(bare[0].lower().strip("-")[:3], bare[1])
        sign = "-" if bare[0][0] == "-" else ""
        cure = f'; JSON has no {bare[0]}: write the string "{sign}{word}", or send the tensor as binary data'
    else:
        cure = ""
    return f"{what}: is no JSON: {error.msg}: line {error.lineno} column {error.colno}{cure}"


def _count_keys_of_request(document: dict[str, Any]) -> int:
    """Keys where a request has objects: quick, and too low for a document with objects elsewhere."""
    n = len(document)
    for field in ("inputs", "outputs"):
        tensors = document.get(field)
        if type(tensors) is list:
            for tensor in tensors:
                if type(tensor) is dict:
                    n += len(tensor)
                    parameters = tensor.get("parameters")
                    if type(parameters) is dict:
                        n += len(parameters)
    parameters = document.get("parameters")
    return n + len(parameters) if type(parameters) is dict else n


def count_keys(value: Any) -> int:
    """Keys of all objects in `value`."""
    n, rest = 0, [value]
    while rest:
        item = rest.pop()
        if type(item) is dict:
            n += len(item)
            rest.extend(item.values())
        elif type(item) is list:
            rest.extend(item)
    return n


class _Duplicate(Exception):
    pass


def _name_duplicate(text: Buffer) -> str:
    def look(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)

    try:
        json.loads(bytes(text), object_pairs_hook=look)
    except _Duplicate as found:
        return f"the key {quoted(str(found))} comes twice"
    except (ValueError, RecursionError):
        pass
    return "a key comes twice"


# --- fields: `holder` is the object, `path` its path with a dot behind, "" at the top


def optional(holder: dict[str, Any], path: str, name: str, kind: type) -> Any:
    """The field, or None when it is not there. null is a wrong type like any other."""
    if name not in holder:
        return None
    value = holder[name]
    if type(value) is not kind:
        raise InvalidArgument(f"{path}{name}: got {_GOT[type(value)]}, expected {_KINDS[kind]}")
    return value


def required(holder: dict[str, Any], path: str, name: str, kind: type) -> Any:
    if name not in holder:
        raise InvalidArgument(f"{path}{name}: missing, expected {_KINDS[kind]}")
    return optional(holder, path, name, kind)


def count(holder: dict[str, Any], path: str, name: str) -> int | None:
    """A whole number that is not negative and fits 64 bits."""
    value: int | None = optional(holder, path, name, int)
    if value is not None and not 0 <= value <= MAX_UINT64:
        raise InvalidArgument(f"{path}{name}: got {value}, expected 0 or more")
    return value


def shape_of(holder: dict[str, Any], path: str) -> list[int]:
    shape: list[int] = required(holder, path, "shape", list)
    for i, size in enumerate(shape):
        if type(size) is not int or not 0 <= size < 2**63:
            got = size if type(size) in (int, float) else _GOT[type(size)]
            raise InvalidArgument(f"{path}shape[{i}]: got {got}, expected a whole number, 0 or more")
    return shape

"""The OpenAPI document of /v2, served at /v2/openapi.json: what handlers really take and give."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.backends.base import DATATYPES

_ERRORS = {
    "400": "What was sent is wrong; the text names the field. Also: not ready.",
    "404": "No such path, model or version.",
    "405": "Wrong method; Allow has the right ones.",
    "408": "The request came too slowly.",
    "413": "The body is larger than limits.max_message_bytes, or its JSON than limits.max_json_bytes.",
    "415": "Content-Encoding is neither gzip nor deflate.",
    "429": "The model's queue or the gateway's memory for requests is full; try later.",
    "431": "The headers are larger than limits.max_header_list_bytes.",
    "500": "The model or the gateway failed; the log has the cause.",
    "501": "Understood, and not offered.",
    "503": "The model does not serve now.",
    "504": "The timeout passed first.",
}

_NAME = {"type": "string"}
_SIZE = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
_SHAPE = {"type": "array", "items": _SIZE}
_VALUE = {"type": ["number", "boolean", "string"]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TENSOR_METADATA = _object(
    ["name", "datatype", "shape"],
    name=_NAME,
    datatype={"enum": list(DATATYPES)},
    shape={
        "type": "array",
        "items": {"type": "integer", "minimum": -1},
        "description": "-1 is any size; the batch comes first",
    },
)

_SCHEMAS: dict[str, Any] = {
    "Error": _object(
        ["error"], error=_NAME, id={"type": "string", "description": "the request's id, or its X-Request-Id"}
    ),
    "ServerMetadata": _object(["name", "version", "extensions"], name=_NAME, version=_NAME, extensions=_list(_NAME)),
    "Live": _object(["live"], live={"const": True}),
    "Ready": _object(["ready"], ready={"const": True}),
    "NotReady": _object(["ready", "error"], ready={"const": False}, error=_NAME),
    "ModelReady": _object(["name", "ready"], name=_NAME, ready={"const": True}),
    "ModelNotReady": _object(["name", "ready", "error"], name=_NAME, ready={"const": False}, error=_NAME),
    "ModelMetadata": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_NAME,
        versions=_list(_NAME),
        platform=_NAME,
        inputs=_list(_TENSOR_METADATA),
        outputs=_list(_TENSOR_METADATA),
    ),
    "Data": {
        "type": "array",
        "description": "Row-major, nested by the shape or flat. FP16 and BF16 only as binary. BYTES are strings. In "
        'FP32 and FP64 NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity".',
        "items": {"anyOf": [_VALUE, _ref("Data")]},
    },
    "InferRequest": _object(
        ["inputs"],
        id=_NAME,
        parameters={
            "type": "object",
            "properties": {
                "priority": {**_COUNT, "description": "1 is the most urgent; 0 is the model's default"},
                "timeout": {**_SIZE, "description": "microseconds; 504 when they have passed"},
                "binary_data_output": {"type": "boolean"},
            },
        },
        inputs=_list(
            _object(
                ["name", "shape", "datatype"],
                name=_NAME,
                shape=_SHAPE,
                datatype={"enum": list(DATATYPES)},
                parameters={
                    "type": "object",
                    "properties": {
                        "binary_data_size": {**_SIZE, "description": "bytes behind the JSON; `data` is then absent"}
                    },
                },
                data=_ref("Data"),
            )
        ),
        outputs=_list(
            _object(
                ["name"],
                name=_NAME,
                parameters={
                    "type": "object",
                    "properties": {
                        "binary_data": {"type": "boolean"},
                        "classification": {**_COUNT, "description": 'top N as "value:index[:label]"; 0 is off'},
                    },
                },
            )
        ),
    ),
    "InferAnswer": _object(
        ["model_name", "model_version", "outputs"],
        model_name=_NAME,
        model_version=_NAME,
        id=_NAME,
        outputs=_list(
            _object(
                ["name", "datatype", "shape"],
                name=_NAME,
                datatype={"enum": list(DATATYPES)},
                shape=_SHAPE,
                parameters=_object([], binary_data_size=_SIZE),
                data=_list(_VALUE),
            )
        ),
    ),
    "Index": _list(
        _object(
            ["name", "version", "state", "reason"],
            name=_NAME,
            version=_NAME,
            state={"enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
            reason=_NAME,
        )
    ),
    "Config": {"type": "object", "description": "Triton's ModelConfig"},
    "Statistics": _object(["model_stats"], model_stats=_list({"type": "object"})),
    "Nothing": {"type": "object", "maxProperties": 0},
}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answers(good: str, *errors: str, **special: str) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "It is so.", "content": _json(_ref(good))}}
    for status in errors:
        answers[status] = {"description": _ERRORS[status], "content": _json(_ref("Error"))}
    for status, schema in special.items():
        number = status.removeprefix("status_")
        answers[number] = {"description": _ERRORS[number], "content": _json(_ref(schema))}
    return answers


def _get(summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": answers}


def _post(summary: str, answers: dict[str, Any], body: dict[str, Any], is_required: bool) -> dict[str, Any]:
    return {"summary": summary, "responses": answers, "requestBody": {"required": is_required, "content": body}}


_CONTROL_BODY = _json(
    _object([], parameters={"type": "object", "additionalProperties": {"type": ["string", "boolean"]}})
)
_CONTROL_ERRORS = ("400", "404", "413", "415", "429", "500", "501", "503")
_INFER_ERRORS = ("400", "404", "408", "413", "415", "429", "500", "501", "503", "504")


def _infer() -> dict[str, Any]:
    answers = _answers("InferAnswer", *_INFER_ERRORS)
    binary = {"schema": {"type": "string", "format": "binary"}}
    answers["200"]["content"]["application/octet-stream"] = binary
    answers["200"]["headers"] = {
        "Inference-Header-Content-Length": {
            "description": "bytes of JSON in front of the tensors, when there are binary ones",
            "schema": {"type": "integer"},
        }
    }
    operation = _post("Run the model.", answers, _json(_ref("InferRequest")), True)
    operation["description"] = (
        "With the header Inference-Header-Content-Length the body is JSON of so many bytes and then the tensors that "
        "have binary_data_size, in their order; with 0 it is the one input's bytes alone. Content-Encoding and "
        "Accept-Encoding: gzip, deflate."
    )
    return operation


def _parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]


def document(version: str) -> bytes:
    """As JSON; `version` is the gateway's."""
    paths: dict[str, Any] = {
        "/v2": {"get": _get("Who this is.", _answers("ServerMetadata"))},
        "/v2/openapi.json": {"get": _get("This document.", _answers("Config"))},
        "/v2/health/live": {"get": _get("The process answers.", _answers("Live"))},
        "/v2/health/ready": {
            "get": _get("It serves a model and is not about to stop.", _answers("Ready", status_400="NotReady"))
        },
        "/v2/models/stats": {"get": _get("What every version has done.", _answers("Statistics", "500", "501", "503"))},
        "/v2/repository/index": {
            "post": _post(
                "All versions, with their states.",
                _answers("Index", "400", "413", "415", "429"),
                _json(_object([], ready={"type": "boolean", "description": "only those that serve"})),
                False,
            )
        },
        "/v2/repository/models/{model}/load": {
            "post": _post(
                "Serve what lies in the repository now.", _answers("Nothing", *_CONTROL_ERRORS), _CONTROL_BODY, False
            )
        },
        "/v2/repository/models/{model}/unload": {
            "post": _post("Stop serving it.", _answers("Nothing", *_CONTROL_ERRORS), _CONTROL_BODY, False)
        },
    }
    for of_model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        paths[of_model] = {"get": _get("What it takes and gives.", _answers("ModelMetadata", "404", "503"))}
        paths[of_model + "/ready"] = {
            "get": _get("Whether it serves.", _answers("ModelReady", status_400="ModelNotReady"))
        }
        paths[of_model + "/config"] = {
            "get": _get("Its configuration.", _answers("Config", "404", "500", "501", "503"))
        }
        paths[of_model + "/stats"] = {
            "get": _get("What it has done.", _answers("Statistics", "404", "500", "501", "503"))
        }
        paths[of_model + "/infer"] = {"post": _infer()}
    for path, operations in paths.items():
        if "{" in path:
            operations["parameters"] = _parameters(path)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Inference gateway",
                "version": version,
                "description": "The Open Inference Protocol with Triton's extensions. Every GET path answers HEAD too. "
                'Every error is {"error": text}.',
            },
            "paths": paths,
            "components": {"schemas": _SCHEMAS},
        }
    )

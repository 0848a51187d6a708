"""Reads an operator's YAML file into a pydantic model, and says what is wrong with it in lines a person can act on.

One renderer for all files: `models/fraud/model.yaml: batching.max_delay: got "5 parsecs", expected a duration such as
500us, 2ms or 1.5s`. YAML's own traps (a key written twice, a tab, a key that is no text) are errors here, not surprises
later.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from gateway.errors import ConfigError

MAX_FILE_BYTES = 2**20
"""A configuration file is a few kilobytes; a model given by mistake must not be parsed as YAML."""

_MAX_SHOWN = 60  # characters of an offending value
_MAX_SHOWN_ITEMS = 8
_MAX_LINES = 20  # after which a person will fix and retry anyway

M = TypeVar("M", bound=BaseModel)


def load_yaml(path: Path, model_class: type[M]) -> M:
    """Read and validate. An empty file means all defaults. ConfigError has one line per fault, each naming file and
    field.
    """
    data = read_mapping(path)
    try:
        return model_class.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(error_lines(error, data, model_class, str(path)))) from None
    except RecursionError:
        raise ConfigError(f"{path}: an alias contains itself; write the values out") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML file as a mapping with text keys. ConfigError names file and line."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB; expected a YAML file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        data = yaml.load(content, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_yaml_fault(error)}") from None
    except ValueError as error:  # e.g. the timestamp 2024-13-45
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: got {shown(data)}, expected `field: value` lines")
    return data


def error_lines(error: ValidationError, data: Any, model_class: type[BaseModel], source: str = "") -> list[str]:
    """`source: field: got ..., expected ...` per faulty field, in the order of the file; `data` is what was
    validated.
    """
    faults = faults_of(error, data, model_class)
    lines = [": ".join(part for part in (source, field, text) if part) for field, text in faults]
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"{source}: and {len(lines) - _MAX_LINES} more".lstrip(": ")]
    return lines


def faults_of(error: ValidationError, data: Any, model_class: type[BaseModel]) -> list[tuple[str, str]]:
    """(field, what came and what was expected) per faulty field."""
    return faults_in(error.errors(include_url=False), data, model_class)


def faults_in(errors: Iterable[Any], data: Any, model_class: type[BaseModel] | None = None) -> list[tuple[str, str]]:
    """The same of a list of pydantic's errors; without `model_class` nobody knows which fields there are."""
    merged: dict[tuple[int | str, ...], list[str]] = {}
    values: dict[tuple[int | str, ...], str] = {}
    for fault in errors:
        path = _path_in_data(fault["loc"], data, missing=fault["type"] == "missing")
        says, wants = _explain(fault, path, model_class)
        values.setdefault(path, says)
        if wants and wants not in merged.setdefault(path, []):
            merged[path].append(wants)
        merged.setdefault(path, [])
    faults = []
    for path, says in values.items():
        wants = " or ".join(merged[path])
        faults.append((field_name(path), f"{says}, expected {wants}" if wants else says))
    return faults


def field_name(path: Sequence[int | str]) -> str:
    """("onnx", "providers", 0) -> "onnx.providers[0]"."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


def shown(value: Any) -> str:
    """A value as a person wrote it, short."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple, set)):
        text = f"[{', '.join(map(shown, value))}]" if len(value) <= _MAX_SHOWN_ITEMS else ""
        return text if 0 < len(text) <= _MAX_SHOWN else "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, int, float)) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 4]}..." + ('"' if isinstance(value, str) else "")


_WANTS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "`field: value` lines",
    "model_type": "`field: value` lines",
    "model_attributes_type": "`field: value` lines",
    "path_type": "a path",
}
_BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "{} or less"),
    "too_short": ("min_length", "at least {} entries"),
    "too_long": ("max_length", "at most {} entries"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_pattern_mismatch": ("pattern", "text that matches {}"),
}


def _explain(fault: Any, path: tuple[int | str, ...], model_class: type[BaseModel] | None) -> tuple[str, str]:
    """What came, and what was expected (may be empty), of one pydantic error."""
    kind, context = fault["type"], fault.get("ctx", {})
    got = f"got {shown(fault['input'])}"
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1], model_class)
        close = difflib.get_close_matches(str(path[-1]), known, 1)
        return "unknown field", close[0] if close else f"one of {', '.join(known)}" if known else ""
    if kind == "missing":
        return "missing", "a value"
    if kind == "expected":
        return got, context["expected"]
    if kind == "union_tag_invalid":  # of several forms, by one of their fields
        field, tags = str(context["discriminator"]).strip("'"), str(context["expected_tags"]).replace("'", "")
        return f"{field}: got {shown(context['tag'])}", f"one of {tags}"
    if kind == "union_tag_not_found":
        return f"{str(context['discriminator']).strip(chr(39))}: missing", "a value"
    if kind in ("literal_error", "enum"):
        return got, str(context["expected"]).replace("'", "")
    if kind in _WANTS:
        return got, _WANTS[kind]
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        return got, text.format(context[name])
    if kind == "value_error":  # a rule over several fields: its text is a whole sentence
        return str(context["error"]), ""
    return f"{got}: {fault['msg']}", ""


def _path_in_data(loc: tuple[int | str, ...], data: Any, missing: bool) -> tuple[int | str, ...]:
    """The part of pydantic's location that a person wrote: it also names the members of a union, which no file
    contains.
    """
    path: list[int | str] = []
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            if not (missing and part == loc[-1]):
                continue
        path.append(part)
    return tuple(path)


def _known_keys(path: tuple[int | str, ...], model_class: type[BaseModel] | None) -> list[str]:
    """Field names of the model at `path`; empty when a plain mapping stands there."""
    found = model_class
    for part in path:
        if isinstance(part, str):  # a number leads from a list to the model of its entries, which is known already
            field = found.model_fields.get(part) if found else None
            found = _model_of(field.annotation) if field else None
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in `Peer`, `Peer | None`, `list[Peer]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part))), None)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what it would silently bend: repeated keys (last one wins) and keys that are not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.tag == "tag:yaml.org,2002:bool" and key_node.value.lower() in ("on", "off", "yes", "no"):
                key_node.tag = "tag:yaml.org,2002:str"  # as YAML has it since 1.2: `on:` is a word
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} is not text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" is already set in line {seen[key]}', key_node.start_mark
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


def _yaml_fault(error: yaml.YAMLError) -> str:
    """One line for a YAML error: where, and what. PyYAML's own text spans lines and repeats the source."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        problem = error.problem or error.context or "not YAML"
        if "'\\t'" in problem:
            problem = "a tab; YAML wants spaces"
        elif "mapping values are not allowed" in problem:
            problem = "a colon where none can stand; put text with a colon in quotes, and check the indentation"
        elif "but found another document" in problem:
            problem = "a second document (---); a configuration file has one"
        elif "could not determine a constructor" in problem:
            problem = problem.replace("could not determine a constructor for the tag", "unknown tag")
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"not text in UTF-8 (at byte {error.position}); is this the right file?"
    return " ".join(str(error).split())

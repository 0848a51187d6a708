"""Totals on their way from the supervisor, who adds them up, to the control process, who shows them: JSON and back."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError

from gateway.observability.aggregate import Totals


def to_json(totals: Totals) -> bytes:
    """One line, without a newline."""
    plain = {field.name: getattr(totals, field.name) for field in fields(totals)}
    keyed = _keyed()
    return orjson.dumps({name: [*value.items()] if name in keyed else value for name, value in plain.items()})


def from_json(line: bytes) -> Totals:
    """ValueError for anything else."""
    try:
        plain: dict[str, Any] = {
            name: _adapters()[name].validate_python(value) for name, value in orjson.loads(line).items()
        }
        plain |= {name: dict(plain[name]) for name in _keyed()}
        return Totals(**plain)
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no totals: {error}") from None


@cache
def _keyed() -> dict[str, tuple[Any, ...]]:
    """Fields that are dictionaries whose keys are no text: JSON has each as a list of pairs."""
    hints = get_type_hints(Totals)
    keyed = [
        name for name, hint in hints.items() if get_origin(hint) is dict and get_origin(get_args(hint)[0]) is tuple
    ]
    return {name: get_args(hints[name]) for name in keyed}


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    hints: dict[str, Any] = get_type_hints(Totals)
    for name, pair in _keyed().items():
        hints[name] = GenericAlias(list, (GenericAlias(tuple, pair),))
    return {name: TypeAdapter(hint) for name, hint in hints.items()}

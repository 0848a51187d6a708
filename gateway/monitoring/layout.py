"""Which fields of a data file make up which tensor.

A tensor is one field of its name, or a field for each value of its row: by model.yaml's names, as `input[0]`,
`input[1]`, or, when nothing else says so and the count fits, all fields that are left, in order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.backends.base import Signature, TensorSpec
from gateway.config.monitoring import Monitoring
from gateway.errors import ConfigError
from gateway.monitoring.profile import row_size
from gateway.monitoring.reader import Frame, Reader
from gateway.monitoring.values import Values


@dataclass(frozen=True, slots=True)
class Layout:
    """Fields by tensor. `has_outputs`: the answers are in the data, all of them."""

    fields: dict[str, list[str]]
    datatypes: dict[str, str]
    """By field, for the reader."""
    has_outputs: bool
    unused: tuple[str, ...]

    def names(self) -> dict[str, list[str]]:
        """What the file calls the values of a row, by tensor, where each is a field of its own."""
        return {
            tensor: fields
            for tensor, fields in self.fields.items()
            if fields != [tensor] and not all(field == f"{tensor}[{at}]" for at, field in enumerate(fields))
            if not any(field.startswith(("input:", "output:")) for field in fields)
            if not all(field.isdigit() for field in fields)
        }

    def tensors(self, frame: Frame) -> dict[str, Values]:
        return {tensor: _joined([frame.columns[field] for field in fields]) for tensor, fields in self.fields.items()}


def lay_out(reader: Reader, signature: Signature, monitoring: Monitoring, ignored: Collection[str] = ()) -> Layout:
    """ConfigError says which columns came and which were expected."""
    for name in ignored:
        if name not in reader.names:
            raise ConfigError(f"--ignore: {reader.path} has no column {name!r}; it has {_listed(reader.names)}")
    left = [name for name in reader.names if name not in ignored]
    fields: dict[str, list[str]] = {}
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            settings = monitoring.tensors.get(spec.name)
            found = _named(spec, kind, row_size(spec, signature.batched), settings.names if settings else (), left)
            if found:
                fields[spec.name] = found
                left = [name for name in left if name not in found]
    missing = [spec for spec in signature.inputs if spec.name not in fields]
    outputs = [spec for spec in signature.outputs if spec.name in fields]
    if missing:
        sizes = [row_size(spec, signature.batched) for spec in missing]
        if min(sizes) < 0 or sum(sizes) != len(left) or any(reader.width(name) != 1 for name in left):
            raise ConfigError(_mismatch(reader, signature, missing, sizes, left))
        names_some = any(spec.name in fields for spec in signature.inputs)
        for spec, size in zip(missing, sizes, strict=True):
            settings = monitoring.tensors.get(spec.name)
            if unnamed := _unnamed(spec, size, settings.names if settings else (), left, names_some):
                raise ConfigError(
                    f"{reader.path}: has no column {unnamed!r}, and names others of the model's; left are "
                    f"{_listed(left)}. Name all as the model does, or none: then they are taken in order"
                )
        for spec, size in zip(missing, sizes, strict=True):
            fields[spec.name], left = left[:size], left[size:]
    has_outputs = len(outputs) == len(signature.outputs)
    if not has_outputs:
        for spec in outputs:  # some answers, not all: the model gives them together
            left += fields.pop(spec.name)
    specs_by_name = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    datatypes = {field: specs_by_name[tensor].datatype for tensor, names in fields.items() for field in names}
    for tensor, names in fields.items():
        _check_width(reader, specs_by_name[tensor], row_size(specs_by_name[tensor], signature.batched), names)
    return Layout(fields, datatypes, has_outputs, tuple(left))


def _named(spec: TensorSpec, kind: str, size: int, names: Sequence[str], left: Sequence[str]) -> list[str]:
    for name in (f"{kind}:{spec.name}", spec.name):
        if name in left:
            return [name]
    for several in (list(names), [f"{spec.name}[{at}]" for at in range(size)]):
        if several and all(name in left for name in several):
            return several
    return []


def _unnamed(spec: TensorSpec, size: int, names: Sequence[str], left: Sequence[str], names_some: bool) -> str:
    """A name that is not in a file which goes by names: what stands in its place is misspelt rather than in order."""
    if size == 1:
        return spec.name if names_some else ""
    for several in (list(names), [f"{spec.name}[{at}]" for at in range(size)]):
        if any(name in left for name in several):
            return next((name for name in several if name not in left), "")
    return ""


def _check_width(reader: Reader, spec: TensorSpec, size: int, fields: list[str]) -> None:
    widths = [reader.width(field) for field in fields]
    if len(fields) > 1:
        odd = next((field for field, width in zip(fields, widths, strict=True) if width != 1), None)
        if odd is not None:
            raise ConfigError(f"{reader.path}: column {odd!r}: got several values in a row, expected one")
    elif size >= 0 and widths[0] not in (-1, size):
        raise ConfigError(
            f"{reader.path}: column {fields[0]!r}: got {widths[0]} values in a row, expected {size} as in "
            f"{spec.name!r} {spec.datatype} {list(spec.shape)}"
        )


def _mismatch(
    reader: Reader, signature: Signature, missing: list[TensorSpec], sizes: list[int], left: list[str]
) -> str:
    wanted = ", ".join(f"{spec.name!r} {spec.datatype} {list(spec.shape)}" for spec in missing)
    if min(sizes) < 0 or not left:
        lists = "; a tensor of open shape is a column of lists under its own name" if min(sizes) < 0 else ""
        return f"{reader.path}: has no column for {wanted}; it has {_listed(reader.names)}{lists}"
    spare = len(left) - sum(sizes)
    cure = (
        f"leave some out with --ignore COLUMN{' (a label?)' if spare == 1 else ''}"
        if spare > 0
        else "name the columns as the inputs, or all of a row's values in model.yaml: monitoring.tensors.NAME.names"
    )
    return f"{reader.path}: got {len(left)} columns ({_listed(left)}), expected {sum(sizes)} for {wanted}; {cure}"


def _joined(columns: list[Values]) -> Values:
    if len(columns) == 1:
        return columns[0]
    n_rows, width = columns[0].n_rows, len(columns)
    if columns[0].text is None:
        arrays = [column.matrix()[:, 0] for column in columns]
        numbers = np.empty((n_rows, width), arrays[0].dtype)
        for at, array in enumerate(arrays):
            numbers[:, at] = array
        return Values(n_rows, numbers, width=width)
    import pyarrow as pa

    texts = pa.concat_arrays([column.text for column in columns])
    order = (np.arange(width) * n_rows + np.arange(n_rows)[:, None]).ravel()
    return Values(n_rows, text=texts.take(order), width=width)


def check_rows(
    values: Mapping[str, Values], signature: Signature, frame: Frame, reader: Reader, layout: Layout
) -> None:
    """That lists are as long as the tensor's rows, where its shape says how long; only reading tells."""
    for spec in (*signature.inputs, *signature.outputs):
        size = row_size(spec, signature.batched)
        if spec.name not in values or size < 0 or values[spec.name].width == size:
            continue
        row = int(np.argmax(values[spec.name].lengths() != size)) if values[spec.name].text is None else 0
        got = int(values[spec.name].lengths()[row]) if values[spec.name].text is None else values[spec.name].width
        raise reader.refusal(
            frame.first_row + row,
            layout.fields[spec.name][0],
            f"got {got} values, expected {size} as in {spec.name!r} {spec.datatype} {list(spec.shape)}",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")

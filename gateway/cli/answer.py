"""What `gateway predict` prints: a table for a person, or JSON in the protocol's own shape for a program."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.cli.failure import Refused

if TYPE_CHECKING:
    from gateway.cli.tensors import Array

MAX_TABLE_ROWS = 40
"""Rows that a person reads; --json prints all."""
MAX_CELL_VALUES = 10


@dataclass
class Answer:
    """Outputs of all requests put together, in the server's order."""

    model: str
    has_rows: bool
    versions: list[str] = field(default_factory=list)
    outputs: dict[str, tuple[str, list[Array]]] = field(default_factory=dict)
    """Name -> datatype and the pieces."""

    def add(self, version: str, outputs: list[tuple[str, str, Array]]) -> None:
        if version not in self.versions:
            self.versions.append(version)
        for name, datatype, array in outputs:
            self.outputs.setdefault(name, (datatype, []))[1].append(array)

    def arrays(self) -> dict[str, tuple[str, Array]]:
        """Name -> datatype and all rows. Refused when the requests were answered with rows of different shapes."""
        import numpy as np

        joined = {}
        for name, (datatype, pieces) in self.outputs.items():
            shapes = {piece.shape[1:] for piece in pieces}
            if len(shapes) > 1:
                shown = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
                raise Refused(f"output {name!r}: rows of shape {shown}; send rows of one shape at a time")
            joined[name] = (datatype, pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
        return joined


def print_json(answer: Answer) -> None:
    """One line. Numbers that JSON lacks (nan, inf) become null; bytes that are no UTF-8 are escaped."""
    outputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": list(array.shape),
            "data": [_plain(v) for v in array.ravel().tolist()],
        }
        for name, (datatype, array) in answer.arrays().items()
    ]
    body = {"model_name": answer.model, "model_version": ",".join(answer.versions), "outputs": outputs}
    print(json.dumps(body, ensure_ascii=False, allow_nan=False))


def print_table(answer: Answer) -> None:
    """One line per row; for a model without rows, one per output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    arrays = answer.arrays()
    versions = ", ".join(answer.versions)
    title = Text(f"{answer.model} version {versions}" if versions else answer.model)
    table = Table(title=title, title_justify="left")
    hidden = 0
    if answer.has_rows:
        table.add_column("row", justify="right")
        for name, (datatype, _) in arrays.items():
            table.add_column(Text(f"{name}\n{datatype}"), overflow="fold")
        n_rows = max((len(array) for _, array in arrays.values()), default=0)
        hidden = max(n_rows - MAX_TABLE_ROWS, 0)
        for row in range(n_rows - hidden):
            table.add_row(
                str(row + 1), *(Text(_cell(array[row]) if row < len(array) else "") for _, array in arrays.values())
            )
    else:
        for heading in ("output", "shape", "value"):
            table.add_column(heading, overflow="fold")
        for name, (datatype, array) in arrays.items():
            table.add_row(Text(name), Text(f"{datatype} {list(array.shape)}"), Text(_cell(array)))
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else 10_000).print(table)  # a pipe has no width to fold at
    if hidden:
        print(f"and {hidden} more rows; --json prints all")


def _cell(value: Any) -> str:
    values = value.ravel() if hasattr(value, "ravel") else [value]
    texts = [_short(each) for each in list(values[:MAX_CELL_VALUES])]
    more = f", ... {len(values)} values" if len(values) > MAX_CELL_VALUES else ""
    return texts[0] if len(values) == 1 else f"[{', '.join(texts)}{more}]"


def _short(value: Any) -> str:
    plain = _plain(value.item() if hasattr(value, "item") else value)
    if plain is None:
        return str(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if isinstance(value, float) and not math.isfinite(value) else value

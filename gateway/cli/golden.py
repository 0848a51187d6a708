"""`gateway model golden`: writes the examples that a version must get right before it sees a request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.failure import reported

if TYPE_CHECKING:
    from gateway.backends.base import Array, Signature


def golden(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Rows: JSON, CSV or npz; - is standard input.", show_default=False)
    ],
    version: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Version. [default: the highest]", show_default=False)
    ] = None,
    models: Annotated[
        Path, typer.Option(metavar="DIR", help="Model repository: DIR/<model>/<version>/model.onnx.")
    ] = Path("models"),
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Examples, spread evenly over DATA.")] = 64,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="csv|json|npz", help="[default: by suffix, else content]", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the golden.npz that is there.")] = False,
) -> None:
    """Write golden.npz into a version's folder: rows of DATA, and the right answers.

    \b
    gateway model golden fraud test.csv --version 3
    gateway model golden fraud scored.npz --version 3      arrays input:NAME and output:NAME

    \b
    The right answers are DATA's own, where it is an npz with output:NAME arrays: write those
    with the framework that trained the model, and a bad export shows. Otherwise they are what
    this version answers here and now; then only what breaks later shows.
    """
    with reported():
        from gateway.errors import ConfigError
        from gateway.monitoring.subject import opened
        from gateway.registry import golden as files
        from gateway.rollout.acceptance import compare

        with opened(models, model, version) as it:
            path = it.folder / files.FILE_NAME
            if path.exists() and not force:
                raise ConfigError(f"{path}: is there already; --force writes over it")
            signature = it.subject.signature
            inputs = _inputs(data, format_, model, signature)
            given = _outputs(data, signature, len(next(iter(inputs.values()))))
            inputs, given = _spread(inputs, rows), _spread(given, rows)
            answers = _answers(it.run, signature, inputs)
        furthest = 0.0
        for name, expected in given.items():
            compared = compare(name, expected, answers[name], 1e-3, 0, len(expected))
            if compared.fault:
                typer.echo(f"note: the version does not answer as DATA says: {compared.fault}", err=True)
            furthest = max(furthest, compared.furthest)
        files.save(path, inputs, given or answers)
        n = len(next(iter(inputs.values())))
        whose = "DATA's answers" if given else "the version's own answers"
        typer.echo(f"{path}: {n} examples with {whose}")


def _inputs(data: str, format_: str | None, model: str, signature: Signature) -> dict[str, Array]:
    from gateway.cli import data as reader
    from gateway.cli.tensors import Input, Model, fit

    inputs = [
        Input(spec.name, spec.datatype, spec.shape, spec.shape[1:] if signature.batched else spec.shape)
        for spec in signature.inputs
    ]
    arrays = fit(reader.read(data, format_), Model(model, inputs, signature.batched))
    return arrays if signature.batched else {name: array[None] for name, array in arrays.items()}


def _outputs(data: str, signature: Signature, n: int) -> dict[str, Array]:
    """Of an npz that has them."""
    import zipfile

    import numpy as np

    from gateway.errors import ConfigError

    if data == "-" or not zipfile.is_zipfile(data):
        return {}
    names = [spec.name for spec in signature.outputs]
    with np.load(data, allow_pickle=False) as file:
        found = {key.removeprefix("output:"): file[key] for key in file.files if key.startswith("output:")}
    for name, array in found.items():
        if name not in names:
            raise ConfigError(f"{data}: got output:{name}, expected outputs {', '.join(names)} of the model")
        if len(array) != n:
            raise ConfigError(f"{data}: output:{name}: got {len(array)} rows, expected {n} as of the inputs")
    return found


def _spread(arrays: dict[str, Array], rows: int) -> dict[str, Array]:
    import numpy as np

    if not arrays:
        return {}
    n = len(next(iter(arrays.values())))
    taken = np.unique(np.linspace(0, n - 1, min(rows, n)).round().astype(int))
    return {name: array[taken] for name, array in arrays.items()}


def _answers(run: Any, signature: Signature, inputs: dict[str, Array]) -> dict[str, Array]:
    import numpy as np

    from gateway.registry.golden import Golden

    n = len(next(iter(inputs.values())))
    wire = {name: _text(array) for name, array in inputs.items()}
    examples = Golden(wire, {}, n)
    parts = [run(examples.arrays(signature, slice(row, row + 1))) for row in range(n)]
    whole = [
        np.concatenate([part[at] if signature.batched else part[at][None] for part in parts])
        for at in range(len(signature.outputs))
    ]
    return {
        spec.name: (array.astype(np.uint32) << 16).view(np.float32) if spec.datatype == "BF16" else array
        for spec, array in zip(signature.outputs, whole, strict=True)
    }


def _text(array: Array) -> Array:
    """Text as the command line holds it is bytes."""
    import numpy as np

    if array.dtype != np.object_:
        return array
    texts = [each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(texts, np.str_).reshape(array.shape)

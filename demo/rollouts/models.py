"""Three models with two versions each, trained here in seconds: stable, and the release that is to replace it.

Every release passes what a careful team tests before it ships: it is better than stable on held-out data, and right on
its golden examples. What is wrong with two of them shows only under real traffic.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.catalogue import SEED
from demo.folder import locked, write_file, write_version
from demo.tables import Table, breast_cancer, breast_cancer_names, digits

UNSEEN_SHARE = 0.4
"""Of the rows: they make the traffic, and no version has been trained on them."""
GOLDEN_ROWS = 16
NOT_A_NUMBER = 0.03
"""Of the wine reports have a word where a number is expected."""
PIXEL = 0.7
"""Size of the new microscope's pixels, of the old one's: what it measures is so much shorter."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Version:
    summary: str
    train: Callable[[Table], Any]
    """A fitted pipeline of scikit-learn."""
    lens: Callable[[Table], Table] = lambda table: table
    """How the team that trained it sees the data."""
    ignores: tuple[str, ...] = ()
    """Inputs that it takes and does not look at."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    about: str
    table: Callable[[], Table]
    stable: Version
    candidate: Version
    as_text: str = ""
    """An input of numbers that callers send as text."""
    watched: tuple[str, str] | None = None
    """A label whose share tells the story, and the word for those who get it."""


# --- what is learnt from


def _wines() -> Table:
    from sklearn.datasets import load_wine

    data = load_wine()
    names = ("alcohol", "flavanoids", "hue", "malic_acid", "proline")
    columns = {name: data.data[:, [data.feature_names.index(name)]].astype(np.float32) for name in names}
    return Table(columns, np.array(["barolo", "grignolino", "barbera"])[data.target])


def _shorter(table: Table) -> Table:
    """The same cells under the new microscope, by a team that took its pixels for the old one's."""
    scale = np.ones(table.inputs["input"].shape[1], np.float32)
    for at, name in enumerate(breast_cancer_names()["input"]):
        if "radius" in name or "perimeter" in name:
            scale[at] = PIXEL
        elif "area" in name:
            scale[at] = PIXEL * PIXEL
    return Table({"input": table.inputs["input"] * scale}, table.target)


# --- what learns


def _forest(table: Table) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(300, max_depth=8, random_state=SEED).fit(table.matrix(), table.target)


def _network(table: Table) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    network = MLPClassifier((64,), max_iter=400, random_state=SEED)
    return make_pipeline(MinMaxScaler(), network).fit(table.matrix(), table.target)


def _logistic(table: Table) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    matrix = table.matrix()
    scaled = ColumnTransformer([("numbers", StandardScaler(), [*range(matrix.shape[1])])])
    return make_pipeline(scaled, LogisticRegression(max_iter=500)).fit(matrix, table.target)


MODELS = (
    Model(
        "postcodes",
        "reads handwritten digits",
        digits,
        Version("random forest of 300 trees", _forest),
        Version("neural network", _network),
    ),
    Model(
        "wine_lab",
        "names the grape from a laboratory's report",
        _wines,
        Version("logistic regression on four numbers", _logistic, ignores=("proline",)),
        Version("the same, and reads the report's proline too", _logistic),
        as_text="proline",
    ),
    Model(
        "screening",
        "tells malignant (0) from benign (1) tumours",
        breast_cancer,
        Version("logistic regression", _logistic),
        Version("trained anew, on images of the new microscope", _logistic, lens=_shorter),
        watched=("0", "of the tumours malignant"),
    ),
)


# --- what is written


def train(root: Path, tell: Callable[[str], None] = print) -> None:
    """DIR/models/<model>/{1,2}/ and DIR/rows/<model>.npz; what is there already stays."""
    from gateway.errors import GatewayError

    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        for model in MODELS:
            if is_trained(root, model):
                continue
            began_s = time.monotonic()
            try:
                rights = [_write(root, model, number) for number in (1, 2)]
            except GatewayError as error:
                raise SystemExit(f"{model.name}: {error}") from None
            said = f"stable gets {rights[0]:.1%} of its own test right, the release {rights[1]:.1%}"
            tell(f"{model.name:<10} {model.about}: {said} ({time.monotonic() - began_s:.1f} s)")


def is_trained(root: Path, model: Model) -> bool:
    from demo.folder import PROFILE, is_complete

    folders = [root / "models" / model.name / str(number) for number in (1, 2)]
    return all(is_complete(folder) for folder in folders) and (folders[0] / PROFILE).is_file()


def _write(root: Path, model: Model, number: int) -> float:
    """One version; the share of its own test set that it has right."""
    from sklearn.model_selection import train_test_split

    from demo.baseline import profile
    from demo.export import named, save

    version = (model.stable, model.candidate)[number - 1]
    table = model.table()
    seen, unseen = train_test_split(
        np.arange(len(table.target)), test_size=UNSEEN_SHARE, random_state=SEED, stratify=table.target
    )
    if number == 1:
        rows = root / "rows" / f"{model.name}.npz"
        rows.parent.mkdir(exist_ok=True)
        save(
            rows, named("input", _on_the_wire(model, table.take(unseen), absent=True)) | {"truth": table.target[unseen]}
        )
    theirs = version.lens(table)
    learnt, held_out = _looked_at(version, theirs.take(seen)), _looked_at(version, theirs.take(unseen))
    pipeline = version.train(learnt)

    def write(folder: Path) -> float:
        (folder / "model.onnx").write_bytes(_exported(model, version, pipeline, learnt))
        examples = theirs.take(unseen[:GOLDEN_ROWS])
        answers = pipeline.predict(_looked_at(version, examples).matrix())
        save(
            folder / "golden.npz",
            named("input", _on_the_wire(model, examples)) | named("output", {"label": np.asarray(answers)}),
        )
        save(folder / "reference.npz", named("input", _on_the_wire(model, theirs.take(seen))))
        (folder / "version.yaml").write_text(f"card:\n  summary: {version.summary}\n")
        return float(pipeline.score(held_out.matrix(), held_out.target))

    right = write_version(root / "models" / model.name / str(number), write)
    write_file(root / "models" / model.name / "model.yaml", f"# The demo's. It {model.about}.\n".encode())
    if number == 1:
        content = profile(root / "models", model.name, 1)
        write_file(root / "models" / model.name / "1" / "profile.json", content)
    return right


def _looked_at(version: Version, table: Table) -> Table:
    return Table({name: each for name, each in table.inputs.items() if name not in version.ignores}, table.target)


def _on_the_wire(model: Model, table: Table, *, absent: bool = False) -> dict[str, Array]:
    """Inputs as callers send them. `absent`: some reports have a word where a number should be."""
    inputs = dict(table.inputs)
    if model.as_text:
        numbers = inputs[model.as_text].ravel()
        text = np.array([f"{number:g}" for number in numbers])
        if absent:
            n = max(1, round(NOT_A_NUMBER * len(text)))
            text[np.random.default_rng(SEED).choice(len(text), n, replace=False)] = "n/a"
        inputs[model.as_text] = text[:, None]
    return inputs


def _exported(model: Model, version: Version, pipeline: Any, learnt: Table) -> bytes:
    """The pipeline as ONNX, with the label alone for an answer, and text where callers send text."""
    import onnx
    from onnx import TensorProto, helper

    from demo.export import convert

    exported = onnx.load_from_string(convert(pipeline, learnt, model.name))
    graph = exported.graph
    del graph.output[1:]
    name = model.as_text
    if not name:
        return bytes(exported.SerializeToString())
    text = helper.make_tensor_value_info(name, TensorProto.STRING, [None, 1])
    if name in version.ignores:
        graph.input.append(text)
        return bytes(exported.SerializeToString())
    for node in graph.node:
        node.input[:] = [f"{name}_as_number" if each == name else each for each in node.input]
    graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_as_number"], to=TensorProto.FLOAT))
    at = [each.name for each in graph.input].index(name)
    graph.input[at].CopyFrom(text)
    return bytes(exported.SerializeToString())


if __name__ == "__main__":
    train(Path(sys.argv[1]))

"""Trains one version, turns it into ONNX, and proves on unseen rows that ONNX Runtime answers as scikit-learn does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.model_selection import train_test_split

from demo.catalogue import SEED, DemoModel, DemoVersion
from demo.tables import Table

OPSET = {"": 21, "ai.onnx.ml": 3}  # what ONNX Runtime 1.20 and newer read; fixed, lest a new converter change the files
GOLDEN_ROWS = 16
REFERENCE_ROWS = 1000
UNSEEN_SHARE = 0.25
TOLERANCE = 1e-5  # of a probability: scikit-learn computes in FP64, the model in FP32

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Quality:
    """How often the version names the right label on rows that it was not trained on."""

    right: int
    rows: int


def export_version(model: DemoModel, version: DemoVersion, folder: Path) -> Quality:
    """Write model.onnx, golden.npz and reference.npz into `folder`. RuntimeError if ONNX Runtime answers otherwise."""
    table = model.table()
    rows = np.arange(len(table.target))
    seen, unseen = train_test_split(rows, test_size=UNSEEN_SHARE, random_state=SEED, stratify=table.target)
    train, test = table.take(seen), table.take(unseen)
    estimator = version.estimator().fit(train.matrix(), train.target)

    onnx_model = convert(estimator, train, f"{model.name}_{version.number}")
    session = onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"])
    labels, _ = _run_and_compare(session, estimator, test)

    golden = test.take(np.arange(GOLDEN_ROWS))
    golden_labels, golden_probabilities = _run_and_compare(session, estimator, golden)
    outputs = {"label": golden_labels, "probabilities": golden_probabilities}
    (folder / "model.onnx").write_bytes(onnx_model)
    save(folder / "golden.npz", named("input", golden.inputs) | named("output", outputs))
    save(folder / "reference.npz", named("input", train.take(np.arange(len(seen))[:REFERENCE_ROWS]).inputs))
    return Quality(right=int(np.sum(labels == test.target)), rows=len(unseen))


def convert(estimator: Any, table: Table, name: str) -> bytes:
    kinds = {True: StringTensorType, False: FloatTensorType}
    signature = [
        (input_name, kinds[values.dtype.kind == "U"]([None, values.shape[1]]))
        for input_name, values in table.inputs.items()
    ]
    # Without zipmap the probabilities are a tensor, not a sequence of maps that no protocol can carry.
    converted = convert_sklearn(
        estimator, name=name, initial_types=signature, options={"zipmap": False}, target_opset=OPSET
    )
    converted.opset_import.sort(key=lambda opset: opset.domain)  # the converter kept them in a set
    model: bytes = converted.SerializeToString(deterministic=True)
    return model


def _run_and_compare(session: Any, estimator: Any, table: Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels and probabilities by ONNX Runtime, held against scikit-learn's own."""
    feed = {
        name: values.astype(object) if values.dtype.kind == "U" else values for name, values in table.inputs.items()
    }
    labels, probabilities = session.run(["label", "probabilities"], feed)
    matrix = table.matrix()
    wrong = int(np.sum(labels != estimator.predict(matrix)))
    furthest = float(np.max(np.abs(probabilities - estimator.predict_proba(matrix))))
    if wrong or furthest > TOLERANCE:
        raise RuntimeError(
            f"ONNX Runtime does not answer as scikit-learn: {wrong} of {len(labels)} labels differ, probabilities by "
            f"up to {furthest:.2g} (tolerance {TOLERANCE:g}). Do these versions of skl2onnx and scikit-learn fit?"
        )
    return labels, probabilities


def named(kind: str, arrays: Arrays) -> Arrays:
    return {
        f"{kind}:{name}": values.astype(str) if values.dtype == object else values for name, values in arrays.items()
    }


def save(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)

"""The data that the demo models learn from, as the named tensors that a caller will send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

WINE_WORDS = 2
WINE_NUMBERS = 4


@dataclass(frozen=True, slots=True)
class Table:
    """One row per example, the same number in each array."""

    inputs: dict[str, np.ndarray[Any, Any]]
    """Name -> [rows, columns], FP32 or unicode."""
    target: np.ndarray[Any, Any]
    """[rows], INT64 or unicode: the label."""

    def take(self, rows: np.ndarray[Any, Any]) -> Table:
        return Table({name: values[rows] for name, values in self.inputs.items()}, self.target[rows])

    def matrix(self) -> np.ndarray[Any, Any]:
        """All inputs side by side as scikit-learn wants them: [rows, all columns], of objects where there are words."""
        columns = list(self.inputs.values())
        if all(values.dtype == np.float32 for values in columns):
            return np.hstack(columns).astype(np.float64)
        return np.hstack([values.astype(object) for values in columns])


def breast_cancer() -> Table:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return Table({"input": data.data.astype(np.float32)}, data.target.astype(np.int64))


def breast_cancer_names() -> dict[str, list[str]]:
    from sklearn.datasets import load_breast_cancer

    return {"input": [str(name) for name in load_breast_cancer().feature_names]}


def digits() -> Table:
    from sklearn.datasets import load_digits

    data = load_digits()
    return Table({"input": data.data.astype(np.float32)}, data.target.astype(np.int64))


def wine() -> Table:
    """Alcohol and colour intensity become words, as a person would fill in a form; the answer is a word too."""
    from sklearn.datasets import load_wine

    data = load_wine()
    column = {name: data.data[:, [at]].astype(np.float32) for at, name in enumerate(data.feature_names)}
    inputs = {
        "body": np.array(["light", "medium", "full"])[np.digitize(column["alcohol"], [12.5, 13.5])],
        "colour": np.array(["pale", "medium", "deep"])[np.digitize(column["color_intensity"], [3.5, 6.0])],
        "flavanoids": column["flavanoids"],
        "hue": column["hue"],
        "malic_acid": column["malic_acid"],
        "proline": column["proline"],
    }
    return Table(inputs, np.array(["barolo", "grignolino", "barbera"])[data.target])

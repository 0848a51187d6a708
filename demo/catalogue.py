"""The demo models: for each the data, what it is, and two versions that differ enough to be worth comparing.

Nothing here imports scikit-learn before a model is trained: a start that finds all models in place must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo import tables

SEED = 0


@dataclass(frozen=True, slots=True)
class DemoVersion:
    number: int
    about: str
    estimator: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class DemoModel:
    name: str
    about: str
    table: Callable[[], tables.Table]
    versions: tuple[DemoVersion, ...]
    names: Callable[[], dict[str, list[str]]] | None = None
    """What the values of an input's row are called, where an input has several."""


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def _boosted_trees() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=SEED)


def _neural_network() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(64, 32), max_iter=300, random_state=SEED))


def _columns(numbers: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    words, n_columns = tables.WINE_WORDS, tables.WINE_WORDS + tables.WINE_NUMBERS
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)  # a word never seen is no error: all zeros
    return ColumnTransformer([("words", one_hot, [*range(words)]), ("numbers", numbers, [*range(words, n_columns)])])


def _wine_logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(_columns(StandardScaler()), LogisticRegression(max_iter=500))


def _wine_forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    # No scaler: its rounding to FP32 could carry a value to the other side of a tree's threshold.
    return make_pipeline(
        _columns("passthrough"), RandomForestClassifier(n_estimators=40, max_depth=6, random_state=SEED)
    )


MODELS = (
    DemoModel(
        "breast_cancer",
        "Tells malignant (0) from benign (1) tumours by 30 measurements of cell nuclei.",
        tables.breast_cancer,
        (
            DemoVersion(1, "logistic regression", _logistic_regression),
            DemoVersion(2, "gradient-boosted trees", _boosted_trees),
        ),
        tables.breast_cancer_names,
    ),
    DemoModel(
        "digits",
        "Reads a handwritten digit from 8 x 8 pixels, row by row, each 0 (white) to 16 (black).",
        tables.digits,
        (
            DemoVersion(1, "logistic regression", _logistic_regression),
            DemoVersion(2, "neural network", _neural_network),
        ),
    ),
    DemoModel(
        "wine",
        "Names the grape of a wine from two words and four measurements, each an input of its own.",
        tables.wine,
        (
            DemoVersion(1, "logistic regression", _wine_logistic_regression),
            DemoVersion(2, "random forest", _wine_forest),
        ),
    ),
)

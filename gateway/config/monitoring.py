"""model.yaml's `monitoring:` section: what of each tensor a profile watches. Without it the signature decides: each
value of a row up to 256 of them, summaries of anything larger. Takes effect when a profile is built, except `enabled`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_NAMES = 65536
MAX_PROJECTIONS = 16
"""Each reads the whole tensor once more."""

_List = Field(strict=False, max_length=MAX_NAMES)  # YAML has lists, and a frozen model tuples
Place = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1, max_length=200)]
"""One value of a row: its index in the tensor, flat, or its name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _needs_mapping(cls, data: Any) -> Any:
        return {} if data is None else data


class TensorMonitoring(_Part):
    """One input or output."""

    watch: Literal["auto", "columns", "summary", "none"] = "auto"
    """Each value of a row, or statistics of the whole tensor."""

    names: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], _List] = ()
    """What the values of a row are called, all of them in order; also the columns of a data file that hold them."""

    only: Annotated[tuple[Place, ...], _List] = ()
    """The values to watch; none named: all."""

    numeric: Annotated[tuple[Place, ...], _List] = ()
    categorical: Annotated[tuple[Place, ...], _List] = ()
    """Else numbers with a fraction are numeric, text is categorical, and whole numbers are what their count says."""

    calibration: Annotated[tuple[Place, ...], _List] | None = None
    """Probabilities, also kept in bins of equal width. By default the last value of an output of one or two that lie
    between 0 and 1.
    """

    statistics: Annotated[tuple[Literal["mean", "std", "min", "max", "norm", "length"], ...], _List] | None = None
    """Of a summary. By default mean, std, min, max and norm, and length where it varies; of text its length alone."""

    projections: Annotated[int, Field(ge=0, le=MAX_PROJECTIONS)] = 4
    """Sums with random signs, which see what mean and norm do not."""

    @model_validator(mode="after")
    def _agree(self) -> TensorMonitoring:
        if both := set(self.numeric) & set(self.categorical):
            raise ValueError(f"{min(map(str, both))} is in numeric and in categorical, expected one of them")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"names has {twice!r} twice, expected each once")
        return self


class Monitoring(_Part):
    """What is watched of one model, all its versions alike."""

    enabled: bool = True
    """false: no profile is used, and nothing counted."""

    bins: Annotated[int, Field(ge=4, le=128)] = 32
    """Of a numeric column, each with about as many rows of the baseline."""

    vocabulary: Annotated[int, Field(ge=1, le=1024)] = 64
    """The most frequent values of a categorical column; the others are counted as one."""

    tensors: dict[str, TensorMonitoring] = {}
    """By the name of an input or output."""

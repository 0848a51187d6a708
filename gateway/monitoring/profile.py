"""profile.json: a frozen baseline of what a version sees and says. All that depends on data is fixed here once: edges,
vocabularies, centres. Serving then only counts integers against it, and integers of many workers add up.

Cells of a numeric column: bin b holds edges[b] <= x < edges[b + 1]; `below` is x < edges[0], `above` is
x >= edges[-1], both finite; NaN and the two infinities have cells of their own. Nothing of a baseline built from data
lies above: its last edge is the next number after the greatest. A profile is for one version's files, by digest.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.backends.base import Signature, TensorSpec
from gateway.config.files import error_lines
from gateway.config.units import expected
from gateway.errors import ConfigError

FILE_NAME = "profile.json"
FORMAT: Final = 1

MAX_FILE_BYTES = 64 * 2**20
"""The largest profile that the limits below allow is half of it."""

MAX_COLUMNS = 1024
"""Columns and outputs of one version: each costs some nanoseconds a row and 300 bytes a tile."""

MAX_BINS = 128
"""A page of a person's screen, and far more than a distance gains from."""

MAX_VOCABULARY = 1024
CALIBRATION_BINS: Final = 20

MAX_QUANTA = 2**20
"""Moments add up rint((x - centre) / scale), cut to +-this: a thousand standard deviations, and 2**63 holds the
squares of eight million such rows.
"""

Statistic = Literal["mean", "std", "min", "max", "norm", "projection", "length"]
NUMBERS = frozenset(
    ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16")
)
WHOLE = frozenset(name for name in NUMBERS if name == "BOOL" or "INT" in name)

Count = Annotated[int, Field(ge=0, le=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Word = Annotated[int, Field(ge=-(2**63), lt=2**64)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Watched(_Part):
    """One thing that is watched: one value of each row, or a statistic of a whole tensor."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Unique in the profile; people read it."""
    tensor: str
    index: Annotated[int, Field(ge=0)] | None = None
    """Which value of the row's tensor, flat. Absent: the row has one value, or a statistic is over all."""

    @property
    def offset(self) -> int:
        return self.index or 0

    @property
    def total(self) -> int:
        """Rows counted, in all cells."""
        raise NotImplementedError


class _Binned(_Watched):
    """A number. Compared and counted as a double, whatever the tensor's type; the edges are values of that type."""

    edges: Annotated[tuple[Finite, ...], Field(min_length=2, max_length=MAX_BINS + 1)]
    counts: tuple[Count, ...]
    below: Count = 0
    above: Count = 0
    nan: Count = 0
    neg_inf: Count = 0
    pos_inf: Count = 0
    centre: Finite
    """The median, near enough. With `scale`: what moments are counted around and in, see MAX_QUANTA."""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """A power of two, about a thousandth of the spread."""
    mean: Finite
    std: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    min: Finite
    max: Finite
    iqr: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Mean to iqr: of the finite values, and 0 where there is none. std divides by n."""

    @field_validator("edges")
    @classmethod
    def _increasing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        for at in range(1, len(edges)):
            if not edges[at - 1] < edges[at]:
                raise ValueError(
                    f"edges must increase: edges[{at - 1}] is {edges[at - 1]!r} and edges[{at}] is {edges[at]!r}"
                )
        return edges

    @field_validator("scale")
    @classmethod
    def _power_of_two(cls, scale: float) -> float:
        if math.frexp(scale)[0] != 0.5:
            raise expected("a power of two")
        return scale

    @model_validator(mode="after")
    def _one_count_for_each_bin(self) -> _Binned:
        if len(self.counts) != len(self.edges) - 1:
            raise ValueError(
                f"{self.name!r} has {len(self.counts)} counts for {len(self.edges)} edges, expected one less than edges"
            )
        return self

    @property
    def total(self) -> int:
        return sum(self.counts) + self.below + self.above + self.nan + self.neg_inf + self.pos_inf

    @property
    def n_finite(self) -> int:
        return sum(self.counts) + self.below + self.above


class Numeric(_Binned):
    """One number of each row."""

    kind: Literal["numeric"] = "numeric"


class Summary(_Binned):
    """A statistic of a whole tensor, row by row, for tensors of too many values to watch each. Computed in doubles and
    then rounded to FP32, so that the order of a sum does not move a value over an edge. std divides by n. `length` is
    the number of values in the row; for text, of its bytes. A row without values counts as NaN, except in `length`.
    """

    kind: Literal["summary"] = "summary"
    statistic: Statistic
    projection_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """projection: sum of +-x[i] / sqrt(n); minus where bit i % 64 of splitmix64 number i // 64 is set. See
    `gateway.monitoring.summaries`.
    """

    @model_validator(mode="after")
    def _seed_of_a_projection(self) -> Summary:
        if (self.statistic == "projection") != (self.projection_seed is not None):
            wants = "a projection_seed" if self.statistic == "projection" else "no projection_seed"
            raise ValueError(f"{self.name!r} is a {self.statistic}, expected {wants}")
        if self.index is not None:
            raise ValueError(f"{self.name!r} is a summary of the whole tensor, expected no index")
        return self


class Categorical(_Watched):
    """A word or a whole number of each row. `missing` is the empty text or NaN, `other` any value not in the
    vocabulary.
    """

    kind: Literal["categorical"] = "categorical"
    vocabulary: tuple[Word, ...] | tuple[str, ...]
    counts: tuple[Count, ...]
    other: Count = 0
    missing: Count = 0
    distinct: Count = 0
    """Different values, missing aside: exact up to the vocabulary's size, then an estimate good to a few percent."""

    @model_validator(mode="after")
    def _one_count_for_each_word(self) -> Categorical:
        if len(self.counts) != len(self.vocabulary):
            raise ValueError(
                f"{self.name!r} has {len(self.counts)} counts for {len(self.vocabulary)} words in its vocabulary"
            )
        if len(self.vocabulary) > MAX_VOCABULARY:
            raise ValueError(
                f"{self.name!r} has {len(self.vocabulary)} words in its vocabulary, expected {MAX_VOCABULARY} at most"
            )
        word, times = Counter(self.vocabulary).most_common(1)[0] if self.vocabulary else ("", 1)
        if times > 1:
            raise ValueError(f"{self.name!r} has {word!r} twice in its vocabulary")
        if "" in self.vocabulary:
            raise ValueError(f'{self.name!r} has "" in its vocabulary; the empty text is counted as missing')
        return self

    @property
    def total(self) -> int:
        return sum(self.counts) + self.other + self.missing


class Calibration(_Watched):
    """A probability in bins of equal width, for the share of right answers by score once labels come."""

    kind: Literal["calibration"] = "calibration"
    bins: Literal[20] = CALIBRATION_BINS
    counts: Annotated[tuple[Count, ...], Field(min_length=CALIBRATION_BINS, max_length=CALIBRATION_BINS)]
    outside: Count = 0
    """NaN, below 0, above 1."""

    EDGES: ClassVar[tuple[float, ...]] = (
        *(b / CALIBRATION_BINS for b in range(CALIBRATION_BINS)),
        1 + 2**-23,  # the FP32 after 1: a sure answer is inside
    )
    """Cells as of a numeric column."""

    @property
    def total(self) -> int:
        return sum(self.counts) + self.outside


Column = Annotated[Numeric | Categorical | Summary | Calibration, Field(discriminator="kind")]


class Profile(_Part):
    """All columns of inputs and outputs that are watched. Rows are counted alike in each."""

    format: Literal[1] = FORMAT
    model: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]
    digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")]
    """Of the version's files: another artefact under the same number has another baseline."""
    source: Literal["data", "live"]
    """From a data set, or learnt from the first requests, which may already have drifted."""
    rows: Annotated[int, Field(ge=1, le=2**53)]
    created: AwareDatetime
    columns: tuple[Column, ...]
    outputs: tuple[Column, ...] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Profile:
        watched = self.watched
        if not 0 < len(watched) <= MAX_COLUMNS:
            raise ValueError(f"{len(watched)} columns and outputs, expected 1 to {MAX_COLUMNS}")
        name, times = Counter(column.name for column in watched).most_common(1)[0]
        if times > 1:
            raise ValueError(f"the name {name!r} stands {times} times, expected each once")
        for column in watched:
            if column.total != self.rows:
                raise ValueError(f"{column.name!r} counts {column.total} rows in its cells, expected {self.rows}")
        return self

    @property
    def watched(self) -> tuple[Numeric | Categorical | Summary | Calibration, ...]:
        return self.columns + self.outputs

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of all that decides into which cell a value falls: tiles of equal fingerprints add up."""
        measured = {"counts", "below", "above", "nan", "neg_inf", "pos_inf", "other", "missing", "outside", "distinct"}
        measured |= {"mean", "std", "min", "max", "iqr"}
        cells = [column.model_dump(exclude=measured) for column in self.watched]
        return hashlib.sha256(orjson.dumps(cells, option=orjson.OPT_SORT_KEYS)).digest()

    def check(self, signature: Signature, model: str = "", version: str = "", digest: str = "") -> None:
        """ConfigError, one line per fault, unless this profile is for that version. Empty names are not compared."""
        faults = []
        if (model and model != self.model) or (version and version != self.version):
            faults.append(f"is of {self.model} version {self.version}, expected {model} version {version}")
        elif digest and _bare(digest) != _bare(self.digest):
            faults.append(
                f"digest: got {_bare(self.digest)[:12]}..., expected {_bare(digest)[:12]}...: "
                f"it was built for other files of version {self.version}"
            )
        faults += _misfits("columns", self.columns, "input", signature.inputs, signature.batched)
        faults += _misfits("outputs", self.outputs, "output", signature.outputs, signature.batched)
        if faults:
            cure = f"build it again: gateway profile build --model {self.model} --version {self.version} DATA"
            raise ConfigError("\n".join(f"{FILE_NAME}: {fault}; {cure}" for fault in faults[:20]))

    def to_json(self) -> bytes:
        """As it lies in the file: a line for each column, so that a difference between two can be read."""
        head = orjson.dumps(self.model_dump(mode="json", exclude={"columns", "outputs"})).removesuffix(b"}")
        lists = []
        for field, columns in (("columns", self.columns), ("outputs", self.outputs)):
            lines = b",\n".join(orjson.dumps(column.model_dump(mode="json", exclude_none=True)) for column in columns)
            lists.append(b'"%s":[\n%s\n]' % (field.encode(), lines) if columns else b'"%s":[]' % field.encode())
        return head + b",\n" + b",\n".join(lists) + b"}\n"


def parse_profile(content: bytes, source: str = FILE_NAME) -> Profile:
    """ConfigError has one line per fault, each naming `source` and field."""
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{source}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: got JSON without fields, expected a profile as gateway profile build writes it")
    if data.get("format") != FORMAT:
        raise ConfigError(f"{source}: format: got {data.get('format')!r}, expected {FORMAT}; build it again")
    try:
        return Profile.model_validate_json(content)
    except ValidationError as error:
        raise ConfigError("\n".join(error_lines(error, data, Profile, source))) from None


def load_profile(path: Path) -> Profile:
    """The file, or the one in a version's folder. ConfigError names it."""
    path = path / FILE_NAME if path.is_dir() else path
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB; is this the right file?")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; gateway profile build writes it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_profile(content, str(path))


def row_size(spec: TensorSpec, batched: bool) -> int:
    """Values in a row of the tensor; -1 where its shape leaves that open."""
    shape = spec.shape[1:] if batched else spec.shape
    return -1 if any(size < 0 for size in shape) else math.prod(shape)


def now_utc() -> datetime:
    """For people and records: to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def _misfits(
    field: str, columns: tuple[Any, ...], kind: str, specs: tuple[TensorSpec, ...], batched: bool
) -> list[str]:
    """What of `columns` the tensors of that side cannot give."""
    known = {spec.name: spec for spec in specs}
    faults = []
    for at, column in enumerate(columns):
        place = f"{field}[{at}] {column.name!r}"
        spec = known.get(column.tensor)
        if spec is None:
            faults.append(f"{place}: got tensor {column.tensor!r}, expected an {kind}: {', '.join(known)}")
            continue
        size = row_size(spec, batched)
        if isinstance(column, Summary):
            if spec.datatype == "BYTES" and column.statistic != "length":
                faults.append(f"{place}: got the {column.statistic} of text, expected its length")
        elif column.offset >= size >= 0:
            faults.append(f"{place}: got index {column.offset}, and {kind} {spec.name!r} has {size} values in a row")
        elif column.index is None and size != 1:
            faults.append(f"{place}: got no index, and {kind} {spec.name!r} has more than one value in a row")
        elif spec.datatype == "BYTES" and not isinstance(column, Categorical):
            faults.append(f"{place}: got {column.kind}, and {kind} {spec.name!r} is text; expected categorical")
        elif isinstance(column, Categorical) and any(
            isinstance(word, str) != (spec.datatype == "BYTES") for word in column.vocabulary[:1]
        ):
            faults.append(f"{place}: got {column.vocabulary[0]!r} in the vocabulary of a tensor of {spec.datatype}")
    return faults


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:")

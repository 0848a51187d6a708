"""What is watched of a version: from its signature alone, or as model.yaml's `monitoring:` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.backends.base import Signature, TensorSpec
from gateway.config.monitoring import Monitoring, Place, TensorMonitoring
from gateway.errors import ConfigError
from gateway.monitoring.profile import MAX_COLUMNS, WHOLE, Statistic, row_size

MAX_ROW_COLUMNS = 256
"""Values of a row up to which each is watched: a table's row, not a picture."""

MAX_LIKELY_SCORES = 2
"""Outputs of one or two values are taken for a probability, if the data agree."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One column of a profile to be. `auto` kinds are settled by the data."""

    name: str
    tensor: str
    datatype: str
    kind: Literal["auto", "numeric", "categorical", "calibration", "summary"]
    index: int | None = None
    statistic: Statistic | None = None
    seed: int | None = None
    is_guess: bool = False
    """A calibration by default: dropped when the values are no probabilities."""

    @property
    def offset(self) -> int:
        return self.index or 0


@dataclass(frozen=True, slots=True)
class Choice:
    inputs: tuple[Watch, ...]
    outputs: tuple[Watch, ...]
    notes: tuple[str, ...]


def choose(signature: Signature, monitoring: Monitoring, names: Mapping[str, Sequence[str]]) -> Choice:
    """`names` by tensor: what a data file calls the values of its row; model.yaml's go first. ConfigError names the
    field of model.yaml that asks for what is not there.
    """
    known = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    for name in monitoring.tensors:
        if name not in known:
            raise ConfigError(f"model.yaml: monitoring.tensors.{name}: no such tensor, expected {', '.join(known)}")
    notes: list[str] = []
    sides: list[tuple[Watch, ...]] = []
    taken: set[str] = set()
    for specs, is_output in ((signature.inputs, False), (signature.outputs, True)):
        side: list[Watch] = []
        for spec in specs:
            settings = monitoring.tensors.get(spec.name, TensorMonitoring())
            size = row_size(spec, signature.batched)
            found = _watches(spec, size, settings, names.get(spec.name, ()), is_output)
            if len(taken) + len(found) > MAX_COLUMNS:
                notes.append(
                    f"{spec.name!r} is not watched: its {len(found)} columns would be more than {MAX_COLUMNS} in all; "
                    f"name some in monitoring.tensors.{spec.name}.only"
                )
                continue
            for watch in found:
                name = watch.name if watch.name not in taken else f"{'output' if is_output else 'input'}:{watch.name}"
                taken.add(name)
                side.append(_renamed(watch, name))
        sides.append(tuple(side))
    return Choice(sides[0], sides[1], tuple(notes))


def value_names(spec: TensorSpec, size: int, given: Sequence[str]) -> list[str]:
    """What the values of a row are called."""
    if size == len(given):
        return list(given)
    return [spec.name] if size == 1 else [f"{spec.name}[{at}]" for at in range(size)]


def _watches(
    spec: TensorSpec, size: int, settings: TensorMonitoring, names: Sequence[str], is_output: bool
) -> list[Watch]:
    field = f"model.yaml: monitoring.tensors.{spec.name}"
    if settings.names and size != len(settings.names):
        shown = "an open number of" if size < 0 else size
        raise ConfigError(f"{field}.names: got {len(settings.names)} names, and a row has {shown} values")
    watch = settings.watch
    if watch == "auto":
        picked = bool(settings.only or settings.numeric or settings.categorical or settings.calibration)
        watch = "columns" if size >= 0 and (0 < size <= MAX_ROW_COLUMNS or picked) else "summary"
    if watch == "none" or size == 0:
        return []
    if watch == "summary":
        return _summaries(spec, size, settings)
    if size < 0:
        raise ConfigError(f"{field}.watch: got columns, and its shape {list(spec.shape)} is open; expected summary")
    called = value_names(spec, size, settings.names or names)
    only = _places(settings.only, called, f"{field}.only") or range(size)
    kinds: dict[int, Literal["numeric", "categorical"]] = {}
    for at in _places(settings.numeric, called, f"{field}.numeric"):
        kinds[at] = "numeric"
        if spec.datatype == "BYTES":
            raise ConfigError(f"{field}.numeric: {called[at]!r} is text, expected it in categorical")
    kinds |= dict.fromkeys(_places(settings.categorical, called, f"{field}.categorical"), "categorical")
    found = []
    for at in only:
        kind = kinds.get(at) or _kind(spec.datatype)
        found.append(Watch(called[at], spec.name, spec.datatype, kind, None if size == 1 else at))
    found += _calibrations(spec, size, settings, called, field, is_output, set(only))
    return found


def _kind(datatype: str) -> Literal["auto", "numeric"]:
    return "auto" if datatype in WHOLE or datatype == "BYTES" else "numeric"


def _summaries(spec: TensorSpec, size: int, settings: TensorMonitoring) -> list[Watch]:
    default: tuple[Statistic, ...] = ("mean", "std", "min", "max", "norm", *(("length",) if size < 0 else ()))
    statistics = settings.statistics if settings.statistics is not None else default
    projections = settings.projections
    if spec.datatype == "BYTES":
        statistics, projections = ("length",), 0
    found = [
        Watch(f"{spec.name}.{statistic}", spec.name, spec.datatype, "summary", None, statistic)
        for statistic in statistics
    ]
    for seed in range(1, projections + 1):
        name = f"{spec.name}.projection{seed}"
        found.append(Watch(name, spec.name, spec.datatype, "summary", None, "projection", seed))
    return found


def _calibrations(
    spec: TensorSpec,
    size: int,
    settings: TensorMonitoring,
    called: list[str],
    field: str,
    is_output: bool,
    watched: set[int],
) -> list[Watch]:
    is_float = spec.datatype in ("FP16", "FP32", "FP64", "BF16")
    is_guess = settings.calibration is None
    if settings.calibration is not None:
        if settings.calibration and not is_float:
            raise ConfigError(f"{field}.calibration: its datatype is {spec.datatype}, expected one with a fraction")
        places: Iterable[int] = _places(settings.calibration, called, f"{field}.calibration")
    else:
        places = [size - 1] if is_output and is_float and size <= MAX_LIKELY_SCORES and size - 1 in watched else []
    return [
        Watch(
            f"{called[at]}.calibration",
            spec.name,
            spec.datatype,
            "calibration",
            None if size == 1 else at,
            is_guess=is_guess,
        )
        for at in places
    ]


def _places(places: Sequence[Place], called: list[str], field: str) -> list[int]:
    found = []
    for at, place in enumerate(places):
        if isinstance(place, str):
            if place not in called:
                shown = ", ".join(called[:8]) + (", ..." if len(called) > 8 else "")
                raise ConfigError(f"{field}[{at}]: got {place!r}, expected an index or one of {shown}")
            place = called.index(place)
        elif place >= len(called):
            raise ConfigError(f"{field}[{at}]: got index {place}, and a row has {len(called)} values")
        if place in found:
            raise ConfigError(f"{field}[{at}]: {called[place]!r} is there twice")
        found.append(place)
    return found


def _renamed(watch: Watch, name: str) -> Watch:
    from dataclasses import replace

    return watch if watch.name == name else replace(watch, name=name)

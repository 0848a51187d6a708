"""Builds a profile from a data set in two passes: the first finds edges and vocabularies, the second counts exactly.

Memory is bounded by the number of columns, not of rows. Outputs that the data lacks are the model's answers, kept in
a temporary file between the passes: the model runs once.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Literal

from gateway.backends.base import Signature
from gateway.config.monitoring import Monitoring
from gateway.errors import ConfigError
from gateway.monitoring.answers import RowRefused, Run, answers
from gateway.monitoring.choice import Choice, choose
from gateway.monitoring.layout import Layout, check_rows, lay_out
from gateway.monitoring.profile import Profile
from gateway.monitoring.reader import Frame, Reader
from gateway.monitoring.tracks import Track
from gateway.monitoring.values import Values

Progress = Callable[[float], None]
"""Told how much is done, 0 to 1."""

FEW_ROWS = 500
"""Below, the profile says so: a share of .1 is known to +-.03 at best."""

Tensors = dict[str, Values]


@dataclass(frozen=True, slots=True)
class Subject:
    """The version that a profile is for."""

    model: str
    version: str
    digest: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Built:
    profile: Profile
    notes: list[str] = field(default_factory=list)
    """Sentences for the person who built it."""


def build(
    reader: Reader,
    subject: Subject,
    monitoring: Monitoring,
    run: Run | None,
    created: datetime,
    *,
    source: Literal["data", "live"] = "data",
    ignored: Collection[str] = (),
    progress: Progress = lambda _: None,
) -> Built:
    """`run` answers for outputs that are not in the data; without it they are not watched. ConfigError names line and
    column of what does not fit.
    """
    layout = lay_out(reader, subject.signature, monitoring, ignored)
    choice = choose(subject.signature, monitoring, layout.names())
    notes = list(choice.notes)
    if layout.unused:
        notes.append(f"not used: {', '.join(layout.unused)}")
    asked = run if choice.outputs and not layout.has_outputs else None
    with tempfile.TemporaryFile() as spool:
        data = _Data(reader, layout, subject.signature, asked, spool)
        inputs, outputs, n_rows = _passes(data, choice, monitoring, layout.has_outputs or asked is not None, progress)
    if choice.outputs and not outputs:
        notes.append("outputs are not watched: they are not in the data, and the model was not run")
    if n_rows < FEW_ROWS:
        notes.append(f"only {n_rows} rows: too few to tell drift from chance; {FEW_ROWS} or more are worth having")
    profile = Profile(
        model=subject.model,
        version=subject.version,
        digest=subject.digest,
        source=source,
        rows=n_rows,
        created=created,
        columns=tuple(track.column() for track in inputs),
        outputs=tuple(track.column() for track in outputs),
    )
    return Built(profile, notes)


def _passes(
    data: _Data, choice: Choice, monitoring: Monitoring, with_outputs: bool, progress: Progress
) -> tuple[list[Track], list[Track], int]:
    inputs = [(watch, Track(watch, monitoring)) for watch in choice.inputs]
    outputs = [(watch, Track(watch, monitoring)) for watch in choice.outputs] if with_outputs else []
    if not inputs and not outputs:
        raise ConfigError("model.yaml: monitoring.tensors: watches nothing; leave some tensor to be watched")
    n_rows = 0
    for tensors in data.first(lambda share: progress(share / 2)):
        n_rows += next(iter(tensors.values())).n_rows
        for watch, track in (*inputs, *outputs):
            track.see(tensors[watch.tensor])
    if not n_rows:
        raise ConfigError(f"{data.reader.path}: holds no rows")
    inputs = [(watch, track) for watch, track in inputs if track.freeze()]
    outputs = [(watch, track) for watch, track in outputs if track.freeze()]
    n_again = 0
    for tensors in data.second(lambda share: progress(0.5 + share / 2)):
        n_again += next(iter(tensors.values())).n_rows
        for watch, track in (*inputs, *outputs):
            track.count(tensors[watch.tensor])
    if n_again != n_rows:
        raise ConfigError(
            f"{data.reader.path}: had {n_rows} rows at first and {n_again} the second time; build from a file at rest"
        )
    return [track for _, track in inputs], [track for _, track in outputs], n_rows


class _Data:
    """Frames as tensors, with the model's answers beside them."""

    def __init__(self, reader: Reader, layout: Layout, signature: Signature, run: Run | None, spool: IO[bytes]) -> None:
        self.reader = reader
        self._layout, self._signature, self._run, self._spool = layout, signature, run, spool

    def first(self, progress: Progress) -> Iterator[Tensors]:
        for frame in self.reader.frames(self._layout.datatypes, progress):
            tensors = self._tensors(frame)
            if self._run is not None:
                found = self._answers(self._run, frame, tensors)
                try:
                    pickle.dump(found, self._spool, protocol=pickle.HIGHEST_PROTOCOL)
                except OSError as error:
                    raise ConfigError(f"{tempfile.gettempdir()}: cannot keep the answers: {error.strerror}") from None
                tensors |= found
            yield tensors

    def second(self, progress: Progress) -> Iterator[Tensors]:
        self._spool.seek(0)
        for frame in self.reader.frames(self._layout.datatypes, progress):
            tensors = self._tensors(frame)
            if self._run is not None:
                try:
                    tensors |= pickle.load(self._spool)  # our own, from a file that has no name
                except EOFError:
                    raise ConfigError(f"{self.reader.path}: has grown meanwhile; build from a file at rest") from None
            yield tensors

    def _tensors(self, frame: Frame) -> Tensors:
        tensors = self._layout.tensors(frame)
        check_rows(tensors, self._signature, frame, self.reader, self._layout)
        return tensors

    def _answers(self, run: Run, frame: Frame, tensors: Tensors) -> Tensors:
        try:
            return answers(run, self._signature, {spec.name: tensors[spec.name] for spec in self._signature.inputs})
        except RowRefused as refusal:
            place = self.reader.place(frame.first_row + refusal.row)
            raise ConfigError(f"{self.reader.path}: {place}: {refusal}") from None

"""A version's drift state as bytes, for the store: a control process that takes over goes on where another stopped.

What lies in the store may be cut off or of another gateway: it is refused with the reason, and one begins anew.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.monitoring import detector
from gateway.monitoring.baseline import Baseline
from gateway.monitoring.drift import DriftState
from gateway.monitoring.windows import Counted, Ring

FORMAT = 1


def to_bytes(state: DriftState) -> bytes:
    """NumPy's npz, compressed, with a head of JSON."""
    minutes = [
        (start, source, each) for start, sources in state.ring.minutes.items() for source, each in sources.items()
    ]
    hours = list(state.ring.hours.items())
    head = {
        "format": FORMAT,
        "fingerprint": state.fingerprint,
        "judged_until_s": state.judged_until_s,
        "pending_from_s": state.pending_from_s,
        "as_of_s": state.as_of_s,
        "held": sorted(state.held),
        "minutes": [(start, source) for start, source, _ in minutes],
        "hours": [start for start, _ in hours],
        "recent": [start for start, _ in state.recent],
    }
    counted = [each for *_, each in minutes] + [each for _, each in hours] + [state.pending]
    watch = state.detector
    arrays = {
        "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        "cells": np.stack([each.cells for each in counted]),
        "moments": np.stack([each.moments for each in counted]),
        "before": state.before,
        "recent": np.array([scores for _, scores in state.recent]),
        "accepted": state.accepted,
        "starts_s": watch.starts_s,
        "scores": np.array(watch.scores, np.float32).reshape(len(watch.scores), watch.log_m.size),
        **{name: getattr(watch, name) for name in _BY_COLUMN},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_bytes(content: bytes, baseline: Baseline) -> DriftState:
    """ValueError says why it is no state of that baseline."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays["head"].tobytes())
        if head["format"] != FORMAT:
            raise ValueError(f"format: got {head['format']!r}, expected {FORMAT}")
        if head["fingerprint"] != baseline.fingerprint:
            raise ValueError("it is of another profile")
        return _state(head, arrays, baseline)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, IndexError, TypeError, OSError) as error:
        raise ValueError(f"a state of drift cannot be read: {type(error).__name__}: {error}") from error


_BY_COLUMN = ("log_m", "n_windows", "log_run", "since_s", "calm", "together")


def _state(head: Mapping[str, Any], arrays: Mapping[str, Any], baseline: Baseline) -> DriftState:
    n_columns = len(baseline.judged)
    if arrays["cells"].shape[1:] != (baseline.n_cells,) or any(
        arrays[name].shape != (n_columns,) for name in (*_BY_COLUMN, "accepted")
    ):
        raise ValueError("its arrays do not have the profile's columns")
    counted = [Counted(*pair) for pair in zip(arrays["cells"], arrays["moments"], strict=True)]
    minutes: dict[int, dict[str, Counted]] = {}
    for (start, source), each in zip(head["minutes"], counted, strict=False):
        minutes.setdefault(start, {})[source] = each
    hours = dict(zip(head["hours"], counted[len(head["minutes"]) :], strict=False))
    return DriftState(
        fingerprint=head["fingerprint"],
        ring=Ring(minutes, hours),
        judged_until_s=head["judged_until_s"],
        pending=counted[-1],
        pending_from_s=head["pending_from_s"],
        before=arrays["before"],
        detector=detector.State(
            arrays["starts_s"], tuple(arrays["scores"]), **{name: arrays[name] for name in _BY_COLUMN}
        ),
        recent=tuple(zip(head["recent"], arrays["recent"], strict=True)),
        held=frozenset(head["held"]),
        accepted=arrays["accepted"],
        as_of_s=head["as_of_s"],
    )

"""--access-log: a fraction, or every Nth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.deployment import WorkerOptions, load_deployment
from gateway.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "every"),
    [("0", 0), (0, 0), ("1", 1), (1.0, 1), ("0.01", 100), (0.5, 2), ("0.3", 3), ("100", 100), (7, 7), ("0.0", 0)],
)
def test_a_fraction_and_an_nth_are_the_same_setting(written: Any, every: int) -> None:
    deployment = load_deployment(None, {"models": Path("m"), "access_log": written})
    assert deployment.access_log == every
    again = WorkerOptions.model_validate_json(WorkerOptions(**deployment.model_dump()).model_dump_json())
    assert again.access_log == every


@pytest.mark.parametrize("written", ["often", "-1", "1.5", "10%", "1e3", True, "99999999999"])
def test_anything_else_is_refused_by_the_flag(written: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^--access-log: got .*, expected a fraction such as 0.01, or a whole number"
    ):
        load_deployment(None, {"models": Path("m"), "access_log": written})


def test_it_is_off_by_default() -> None:
    assert load_deployment(None, {"models": Path("m")}).access_log == 0

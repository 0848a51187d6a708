"""model.yaml's `monitoring:` section: its defaults, and the line that an operator reads when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.model import ModelConfig, load_model_config
from gateway.config.monitoring import Monitoring, TensorMonitoring
from gateway.errors import ConfigError


def loaded(folder: Path, content: str) -> Monitoring:
    (folder / "model.yaml").write_text(content)
    return load_model_config(folder).monitoring


@pytest.mark.parametrize("content", ["", "monitoring:\n", "monitoring:\n  tensors: {x: }\n"])
def test_by_default_the_signature_decides(tmp_path: Path, content: str) -> None:
    monitoring = loaded(tmp_path, content)
    assert (monitoring.enabled, monitoring.bins, monitoring.vocabulary) == (True, 32, 64)
    assert ModelConfig().monitoring == Monitoring()
    assert monitoring.tensors.get("x", TensorMonitoring()) == TensorMonitoring()


def test_every_field_can_be_set(tmp_path: Path) -> None:
    content = """
monitoring:
  enabled: false
  bins: 16
  vocabulary: 10
  tensors:
    x: {watch: columns, names: [a, b], only: [a, 1], numeric: [a], categorical: [1], calibration: []}
    y: {watch: summary, statistics: [mean, length], projections: 0}
"""
    monitoring = loaded(tmp_path, content)
    assert (monitoring.enabled, monitoring.bins, monitoring.vocabulary) == (False, 16, 10)
    assert monitoring.tensors["x"] == TensorMonitoring(
        watch="columns", names=("a", "b"), only=("a", 1), numeric=("a",), categorical=(1,), calibration=()
    )
    assert monitoring.tensors["y"] == TensorMonitoring(watch="summary", statistics=("mean", "length"), projections=0)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("bins: 2", "monitoring.bins: got 2, expected 4 or more"),
        ("bins: 500", "monitoring.bins: got 500, expected 128 or less"),
        ("vocabulary: 0", "monitoring.vocabulary: got 0, expected 1 or more"),
        ("enabled: 1", "monitoring.enabled: got 1, expected true or false"),
        ("tensor: {}", "monitoring.tensor: unknown field, expected tensors"),
        ("tensors: {x: {watch: all}}", 'watch: got "all", expected auto, columns, summary or none'),
        ("tensors: {x: {only: [-1]}}", "monitoring.tensors.x.only[0]: got -1, expected 0 or more"),
        ("tensors: {x: {only: age}}", 'monitoring.tensors.x.only: got "age", expected a list'),
        ("tensors: {x: {names: [a, a]}}", "names has 'a' twice, expected each once"),
        ("tensors: {x: {numeric: [a], categorical: [a]}}", "a is in numeric and in categorical, expected one of them"),
        ("tensors: {x: {statistics: [median]}}", 'monitoring.tensors.x.statistics[0]: got "median", expected mean'),
        ("tensors: {x: {projections: 17}}", "monitoring.tensors.x.projections: got 17, expected 16 or less"),
    ],
)
def test_a_fault_is_named_with_its_field(tmp_path: Path, content: str, line: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        loaded(tmp_path, f"monitoring: {{{content}}}")
    assert line in str(refusal.value)

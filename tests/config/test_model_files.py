"""The renderer of faults with what model.yaml does not have: lists of models, unions, missing fields, plain types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gateway.config.files import load_yaml, shown
from gateway.config.units import DurationUs, SizeBytes
from gateway.errors import ConfigError


class Peer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    host: Annotated[str, Field(min_length=1, pattern="^[a-z.]+$")]
    port: Annotated[int, Field(gt=0, lt=65536)] = 1


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    models: Path | None = None
    peers: Annotated[list[Peer], Field(max_length=2)] = []
    log: int | Literal["auto"] = "auto"
    drain: DurationUs = 0
    limits: dict[str, SizeBytes] = {}
    first: Peer | None = None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("peers: [{port: 1}]", "peers[0].host: missing, expected a value"),
        ("peers: [{host: a}, {host: b, port: 0}]", "peers[1].port: got 0, expected a number above 0"),
        ("peers: [{host: a, port: 70000}]", "peers[0].port: got 70000, expected a number below 65536"),
        ("peers: [{host: A}]", 'peers[0].host: got "A", expected text that matches ^[a-z.]+$'),
        ("peers: [{host: ''}]", 'peers[0].host: got "", expected at least 1 characters'),
        ("peers: [{host: a, prot: 1}]", "peers[0].prot: unknown field, expected port"),
        ("first: {host: a, prot: 1}", "first.prot: unknown field, expected port"),
        ("peers: [{host: a}, {host: a}, {host: a}]", "peers: got [a mapping, a mapping, a mapping], expected at most"),
        ("peers: 3", "peers: got 3, expected a list"),
        ("log: loud", 'log: got "loud", expected a whole number or auto'),
        ("drain: soon", 'drain: got "soon", expected a duration such as 500us'),
        ("limits: {a: 1KiB, b: big}", 'limits.b: got "big", expected a size such as'),
        ("limits: 1", "limits: got 1, expected `field: value` lines"),
        ("models: 3", "models: got 3, expected a path"),
    ],
)
def test_any_model_class_gets_the_same_lines(tmp_path: Path, content: str, line: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, Settings)
    assert str(caught.value).startswith(f"{file}: {line}")
    assert "\n" not in str(caught.value)


def test_good_values_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("models: demo\npeers: [{host: a}]\nlog: 3\ndrain: 30s\nlimits: {a: 1KiB}\n")
    settings = load_yaml(file, Settings)
    assert settings == Settings(models=Path("demo"), peers=[Peer(host="a")], log=3, drain=30, limits={"a": 1024})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.yaml: no such file"):
        load_yaml(tmp_path / "gateway.yaml", Settings)


def test_a_flood_of_faults_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("\n".join(f"k{n}: 1" for n in range(100)))
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, Settings)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == f"{file}: and 80 more"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.0, "1.0"),
        ("é", '"é"'),
        ({"a": 1}, "a mapping"),
        ([], "[]"),
        (["a", 1], '["a", 1]'),
        (list(range(100)), "a list"),
        ("x" * 100, f'"{"x" * 55}..."'),
    ],
)
def test_values_are_shown_as_written_and_short(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(text) <= 61

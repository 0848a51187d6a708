"""model.yaml: what it means, and the line that an operator reads when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.files import error_lines
from gateway.config.model import Batching, ModelConfig, Onnx, load_model_config
from gateway.errors import ConfigError


def model_folder(root: Path, content: str | bytes) -> Path:
    folder = root / "models" / "fraud"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_without_a_file_all_is_default(tmp_path: Path) -> None:
    assert load_model_config(tmp_path) == ModelConfig()


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "batching:\nonnx:\n", "---\n"])
def test_an_empty_file_or_section_is_default(tmp_path: Path, content: str) -> None:
    assert load_model_config(model_folder(tmp_path, content)) == ModelConfig()


def test_defaults_are_eager_and_bounded() -> None:
    batching = ModelConfig().batching
    assert batching.max_batch_size == "auto"
    assert batching.max_delay_us == 0
    assert batching.instances == "auto"
    assert (batching.priority_levels, batching.default_priority) == (1, 1)
    assert (batching.queue_rows, batching.queue_bytes) == (65536, 256 * 2**20)
    assert (batching.default_timeout_us, batching.max_timeout_us) == (None, None)


def test_every_field_can_be_set(tmp_path: Path) -> None:
    content = """
backend: onnx
batching:
  max_batch_size: 32
  max_delay: 500us
  instances: 2
  priority_levels: 3
  default_priority: 2
  queue_rows: 1000
  queue_bytes: 64MiB
  default_timeout: 1.5s
  max_timeout: 30
onnx:
  providers: [CUDA, cpu, AzureExecutionProvider]
  provider_options: {cuda: {device_id: 1, gpu_mem_limit: 1000, do_copy_in_default_stream: true}}
  intra_op_threads: 4
  graph_level: extended
  spinning: true
  arena: false
"""
    assert load_model_config(model_folder(tmp_path, content)) == ModelConfig(
        batching=Batching(
            max_batch_size=32,
            max_delay_us=500,
            instances=2,
            priority_levels=3,
            default_priority=2,
            queue_rows=1000,
            queue_bytes=64 * 2**20,
            default_timeout_us=1_500_000,
            max_timeout_us=30_000_000,
        ),
        onnx=Onnx(
            providers=("CUDAExecutionProvider", "CPUExecutionProvider", "AzureExecutionProvider"),
            provider_options={
                "CUDAExecutionProvider": {
                    "device_id": "1",
                    "gpu_mem_limit": "1000",
                    "do_copy_in_default_stream": "1",
                }
            },
            intra_op_threads=4,
            graph_level="extended",
            spinning=True,
            arena=False,
        ),
    )


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        ("{max_delay: 2ms}", "max_delay_us", 2_000),
        ("{max_delay: 0.002}", "max_delay_us", 2_000),  # numbers are seconds
        ("{max_delay_us: 2000}", "max_delay_us", 2_000),
        ("{default_timeout: none}", "default_timeout_us", None),
        ("{default_timeout: null}", "default_timeout_us", None),
        ("{default_timeout_us: 7}", "default_timeout_us", 7),
        ("{max_batch_size: auto}", "max_batch_size", "auto"),
        ("{max_batch_size: 0}", "max_batch_size", 0),
        ("{queue_bytes: 1048576}", "queue_bytes", 2**20),
    ],
)
def test_a_setting_can_be_spelled_in_several_ways(tmp_path: Path, content: str, field: str, value: Any) -> None:
    config = load_model_config(model_folder(tmp_path, f"batching: {content}"))
    assert getattr(config.batching, field) == value


def test_settings_survive_being_sent_to_another_process(tmp_path: Path) -> None:
    content = "batching: {max_delay: 2ms, max_timeout: 3s}\nonnx: {providers: [cpu], provider_options: {cpu: {a: 1}}}"
    config = load_model_config(model_folder(tmp_path, content))
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelConfig().batching.max_delay_us = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("batching: {max_delay: 5 parsecs}", 'batching.max_delay: got "5 parsecs", expected a duration such as 500us'),
        ("batching: {max_delay: -1}", "batching.max_delay: got -1, expected a duration such as 500us, 2ms or 1.5s"),
        ("batching: {max_delay: true}", "batching.max_delay: got true, expected a duration"),
        ("batching: {max_delay_us: 1.5}", "batching.max_delay_us: got 1.5, expected a whole number"),
        ("batching: {max_delay_us: -1}", "batching.max_delay_us: got -1, expected 0 or more"),
        ("batching: {max_delay: 1ms, max_delay_us: 3}", "batching.max_delay_us: got 3, expected either max_delay or"),
        ("batching: {max_batch_size: many}", 'batching.max_batch_size: got "many", expected auto or a whole number'),
        ("batching: {max_batch_size: true}", "batching.max_batch_size: got true, expected auto or a whole number"),
        ("batching: {max_batch_size: 70000}", "expected auto or a whole number from 0 to 65536"),
        ("batching: {instances: 0}", "batching.instances: got 0, expected auto or a whole number from 1 to 256"),
        ("batching: {queue_rows: 0}", "batching.queue_rows: got 0, expected 1 or more"),
        ("batching: {queue_rows: '9'}", 'batching.queue_rows: got "9", expected a whole number'),
        ("batching: {queue_bytes: lots}", 'batching.queue_bytes: got "lots", expected a size such as 65536, 512KiB'),
        ("batching: {queue_bytes: 0}", "batching.queue_bytes: got 0, expected a byte at least"),
        ("batching: {default_timeout: 0}", "batching.default_timeout: got 0, expected more than 0, or none"),
        ("batching: {default_timeout_us: none}", 'default_timeout_us: got "none", expected a whole number'),
        ("batching: {default_priority: 2}", "batching: default_priority is 2, expected at most priority_levels"),
        (
            "batching: {default_timeout: 2s, max_timeout: 1500ms}",
            "batching: default_timeout is 2s, expected at most max_timeout, which is 1500ms",
        ),
        ("batching: {max_dely: 2ms}", "batching.max_dely: unknown field, expected max_delay"),
        ("batching: 5", "batching: got 5, expected `field: value` lines"),
        ("batching: [a, b]", 'batching: got ["a", "b"], expected `field: value` lines'),
        ("colour: red", "colour: unknown field, expected one of backend, batching, onnx"),
        ("backend: pytorch", 'backend: got "pytorch", expected onnx'),
        ("onnx: {providers: cuda}", 'onnx.providers: got "cuda", expected auto or a list such as [cuda, cpu]'),
        ("onnx: {providers: []}", "onnx.providers: got [], expected auto or a list such as [cuda, cpu]"),
        ("onnx: {providers: [gpu]}", 'onnx.providers: got ["gpu"], expected one of cpu, cuda, tensorrt'),
        ("onnx: {providers: [cpu, CPU]}", 'onnx.providers: got ["cpu", "CPU"], expected each provider once'),
        ("onnx: {provider_options: {cuda: 1}}", "onnx.provider_options: got a mapping, expected options by provider"),
        ("onnx: {provider_options: {cuda: {a: [1]}}}", "expected text, numbers, true or false as the value"),
        (
            "onnx: {providers: [cpu], provider_options: {cuda: {device_id: 0}}}",
            "onnx: provider_options names CUDAExecutionProvider, expected one of providers: CPUExecutionProvider",
        ),
        ("onnx: {intra_op_threads: 0}", "onnx.intra_op_threads: got 0, expected 1 or more"),
        ("onnx: {graph_level: most}", 'onnx.graph_level: got "most", expected all, extended, basic or disabled'),
        ("onnx: {spinning: 1}", "onnx.spinning: got 1, expected true or false"),
        ("- a\n- b", 'got ["a", "b"], expected `field: value` lines'),
        ("just words", 'got "just words", expected `field: value` lines'),
        ("batching:\n\tmax_delay: 1", "line 2, column 1: a tab; YAML wants spaces"),
        ("batching: {}\nbatching: {}", 'line 2, column 1: the key "batching" is already set in line 1'),
        ("onnx:\n  arena: true\n  arena: false", 'line 3, column 3: the key "arena" is already set in line 2'),
        ("true: 1", "line 1, column 1: the key true is not text; put it in quotes"),
        ("batching: max_delay: 1", "line 1, column 20: a colon where none can stand"),
        ("batching: [", "line 1, column 12: "),
        ("batching: {}\n---\nonnx: {}", "line 2, column 1: a second document (---)"),
        ("batching: !!python/object:os.system x", "line 1, column 11: unknown tag"),
        ("batching: &a {queue_rows: *a}", "expected a whole number"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"batching: \x00", "not text in UTF-8"),
        (b"caf\xe9: 1", "not text in UTF-8"),
        ("batching: 2024-13-45", "not readable as YAML: month must be in 1..12"),
        ("[" * 3000, "nested too deeply"),
        ("#" * (2**20 + 1), "larger than 1 MiB; expected a YAML file"),
    ],
)
def test_a_fault_is_one_line_that_names_file_field_and_cure(tmp_path: Path, content: str | bytes, line: str) -> None:
    folder = model_folder(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_model_config(folder)
    text = str(caught.value)
    assert line in text
    assert text.startswith(f"{folder / 'model.yaml'}: ")
    assert "\n" not in text
    assert "pydantic" not in text


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "colour: red\nbatching: {instances: 0, queue_rows: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_model_config(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{folder / 'model.yaml'}: ") for line in lines)


def test_a_file_of_the_wrong_name_is_an_error_not_a_default(tmp_path: Path) -> None:
    (tmp_path / "model.yml").write_text("batching: {max_batch_size: 8}")
    with pytest.raises(ConfigError, match=r"expected model\.yaml; rename the file"):
        load_model_config(tmp_path)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_model_config(tmp_path)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "batching": [*sorted(Batching.model_fields), "max_delay", "default_timeout", "max_timeout"],
    "onnx": sorted(Onnx.model_fields),
}


@given(section=st.sampled_from(sorted(FIELDS)), data=st.data(), value=YAML_VALUES)
def test_any_value_is_taken_or_refused_with_its_field(section: str, data: st.DataObject, value: Any) -> None:
    field = data.draw(st.sampled_from(FIELDS[section]))
    content = {section: {field: value}}
    try:
        ModelConfig.model_validate(content)
    except ValidationError as error:
        lines = error_lines(error, content, ModelConfig, "model.yaml")
        assert lines
        assert all(line.startswith(f"model.yaml: {section}") for line in lines)

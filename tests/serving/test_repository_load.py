"""RepositoryModelLoad and Unload by Triton's own client: what is found, what is left alone, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from tests.support.control import ask, index, put, refusal, remove, times
from tests.support.gatewayprocess import GatewayProcess

Serve = Callable[..., GatewayProcess]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each test has models of its own name in it."""
    root = tmp_path_factory.mktemp("repository")
    put(root, "first", 1, times(1))
    return root


@pytest.fixture(scope="module")
def gateway(serve_for_module: Serve, root: Path) -> GatewayProcess:
    return serve_for_module(root, "--model-control")


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(gateway.grpc_url) as client:
        yield client


def n_loads(gateway: GatewayProcess, model: str) -> int:
    """Versions that were really loaded on request."""
    return sum(len(event["versions"]) for event in gateway.events("model loaded") if event["model"] == model)


def test_without_the_flag_load_and_unload_are_refused_by_its_name(serve: Serve, root: Path) -> None:
    gateway = serve(root)
    with triton.InferenceServerClient(gateway.grpc_url) as client:
        for call in (client.load_model, client.unload_model):
            code, text = refusal(call, "first")
            assert code == "UNAVAILABLE"
            assert "--model-control" in text
        assert ask(client, "first") == 1
        assert list(client.get_server_metadata().extensions) == ["schedule_policy", "model_configuration", "statistics"]


def test_with_the_flag_the_server_says_that_models_can_be_loaded(client: triton.InferenceServerClient) -> None:
    assert {"model_repository", "model_repository(unload_dependents)"} <= set(client.get_server_metadata().extensions)


def test_a_model_that_was_added_is_served(client: triton.InferenceServerClient, root: Path) -> None:
    put(root, "added", 3, times(2))
    assert index(client, "added") == {}
    client.load_model("added")
    assert ask(client, "added") == 2
    assert index(client, "added") == {"3": ("READY", "")}


def test_a_version_that_was_added_becomes_the_default_and_the_other_is_left_alone(
    client: triton.InferenceServerClient, gateway: GatewayProcess, root: Path
) -> None:
    put(root, "grows", 1, times(2))
    client.load_model("grows")
    put(root, "grows", 2, times(3))
    client.load_model("grows")
    assert (ask(client, "grows"), ask(client, "grows", "1")) == (3, 2)
    assert n_loads(gateway, "grows") == 2


def test_what_has_not_changed_is_not_loaded_again(
    client: triton.InferenceServerClient, gateway: GatewayProcess, root: Path
) -> None:
    put(root, "same", 1, times(2))
    for _ in range(3):
        client.load_model("same")
    assert n_loads(gateway, "same") == 1


def test_a_changed_file_is_loaded_anew(client: triton.InferenceServerClient, root: Path) -> None:
    put(root, "changes", 1, times(2))
    client.load_model("changes")
    put(root, "changes", 1, times(5))
    assert ask(client, "changes") == 2
    client.load_model("changes")
    assert ask(client, "changes") == 5


def test_a_changed_model_yaml_is_picked_up(client: triton.InferenceServerClient, root: Path) -> None:
    put(root, "tuned", 1, times(2), "batching: {max_batch_size: 4}")
    client.load_model("tuned")
    put(root, "tuned", 1, times(2), "batching: {max_batch_size: 16, max_delay: 1ms}")
    client.load_model("tuned")
    config = client.get_model_config("tuned").config
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (16, 1000)


def test_a_version_whose_folder_was_removed_is_unloaded_by_the_next_load(
    client: triton.InferenceServerClient, root: Path
) -> None:
    for version in (1, 2):
        put(root, "shrinks", version, times(version))
    client.load_model("shrinks")
    remove(root, "shrinks", 2)
    client.load_model("shrinks")
    assert ask(client, "shrinks") == 1
    assert index(client, "shrinks") == {"1": ("READY", ""), "2": ("UNAVAILABLE", "unloaded")}
    assert refusal(ask, client, "shrinks", "2")[0] == "UNAVAILABLE"


def test_an_unloaded_model_is_not_served_and_can_be_loaded_again(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "comes_and_goes", 1, times(2))
    for _ in range(3):
        client.load_model("comes_and_goes")
        assert ask(client, "comes_and_goes") == 2
        client.unload_model("comes_and_goes")
        assert index(client, "comes_and_goes") == {"1": ("UNAVAILABLE", "unloaded")}
        assert refusal(ask, client, "comes_and_goes")[0] == "UNAVAILABLE"
        assert not client.is_model_ready("comes_and_goes")
        client.unload_model("comes_and_goes", unload_dependents=True)  # once more harms nothing
    assert client.is_server_ready()


def test_a_model_whose_folder_is_gone_unloads_cleanly(client: triton.InferenceServerClient, root: Path) -> None:
    put(root, "deleted", 1, times(2))
    client.load_model("deleted")
    remove(root, "deleted")
    assert ask(client, "deleted") == 2
    client.unload_model("deleted")
    assert index(client, "deleted") == {"1": ("UNAVAILABLE", "unloaded")}


def test_loading_a_model_whose_folder_is_gone_is_refused_and_it_goes_on_serving(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "lost", 1, times(2))
    client.load_model("lost")
    remove(root, "lost")
    assert refusal(client.load_model, "lost")[0] == "NOT_FOUND"
    assert ask(client, "lost") == 2


def test_a_load_that_fails_leaves_what_served_before(client: triton.InferenceServerClient, root: Path) -> None:
    put(root, "breaks", 1, times(2))
    client.load_model("breaks")
    put(root, "breaks", 1, b"")
    put(root, "breaks", 2, b"no model")
    put(root, "breaks", 3, times(3))
    code, text = refusal(client.load_model, "breaks")
    assert code == "FAILED_PRECONDITION"
    assert "nothing was changed; version 1: " in text
    assert "is empty (0 bytes)" in text
    assert "; version 2: " in text
    assert ask(client, "breaks") == 2
    states = index(client, "breaks")
    assert states["1"] == ("READY", "")
    assert states["2"][0] == "UNAVAILABLE"
    assert "2/model.onnx" in states["2"][1]
    assert states["3"][0] == "UNAVAILABLE"
    assert states["3"][1].startswith("not put into service: version 1: ")
    put(root, "breaks", 1, times(4))
    remove(root, "breaks", 2)
    client.load_model("breaks")
    assert (ask(client, "breaks"), ask(client, "breaks", "1")) == (3, 4)


def test_a_wrong_model_yaml_fails_the_load_by_its_field_and_changes_nothing(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "mistyped", 1, times(2))
    client.load_model("mistyped")
    put(root, "mistyped", 1, times(3), "batching: {max_batch_sise: 4}")
    code, text = refusal(client.load_model, "mistyped")
    assert code == "FAILED_PRECONDITION"
    assert "batching.max_batch_sise" in text
    assert ask(client, "mistyped") == 2


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("nobody", "NOT_FOUND"),
        ("", "INVALID_ARGUMENT"),
        ("../repository", "INVALID_ARGUMENT"),
        (".", "INVALID_ARGUMENT"),
        ("a\nb", "INVALID_ARGUMENT"),
        ("x" * 300, "INVALID_ARGUMENT"),
    ],
)
def test_what_is_no_model_here_is_refused(client: triton.InferenceServerClient, model: str, code: str) -> None:
    for call in (client.load_model, client.unload_model):
        assert refusal(call, model)[0] == code


CONFIG = {
    "max_batch_size": 8,
    "dynamic_batching": {
        "max_queue_delay_microseconds": "250",
        "priority_levels": 3,
        "defaultPriorityLevel": 2,
        "default_queue_policy": {"default_timeout_microseconds": 5000000, "max_queue_size": 77},
    },
    "instance_group": [{"count": 3}],
}


def test_a_config_changes_what_it_names_until_the_next_load_without_one(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "overridden", 1, times(2), "batching: {max_batch_size: 4, max_delay: 1ms, max_timeout: 9s}")
    client.load_model("overridden", config=json.dumps(CONFIG))
    config = client.get_model_config("overridden").config
    batching, queue = config.dynamic_batching, config.dynamic_batching.default_queue_policy
    assert (config.max_batch_size, config.instance_group[0].count) == (8, 3)
    assert (batching.max_queue_delay_microseconds, batching.priority_levels, batching.default_priority_level) == (
        250,
        3,
        2,
    )
    assert (queue.default_timeout_microseconds, queue.max_queue_size) == (5_000_000, 77)
    client.load_model("overridden", config='{"dynamic_batching": {"max_queue_delay_microseconds": 0}}')
    config = client.get_model_config("overridden").config
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (4, 0)
    client.load_model("overridden")
    config = client.get_model_config("overridden").config
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (4, 1000)


def test_the_configuration_that_was_read_can_be_sent_back_changed(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "round_trip", 1, times(2))
    client.load_model("round_trip")
    config = client.get_model_config("round_trip", as_json=True)["config"]
    client.load_model("round_trip", config=json.dumps(config))
    assert client.get_model_config("round_trip", as_json=True)["config"] == config
    config["max_batch_size"] = 2
    client.load_model("round_trip", config=json.dumps(config))
    assert client.get_model_config("round_trip", as_json=True)["config"] == config


@pytest.mark.parametrize(
    ("config", "code", "text"),
    [
        ("{", "INVALID_ARGUMENT", "not readable as JSON"),
        ("[1]", "INVALID_ARGUMENT", "expected a JSON object"),
        ("[" * 100_000, "INVALID_ARGUMENT", "not readable as JSON"),
        ('{"optimization": {}}', "INVALID_ARGUMENT", "'optimization' is not offered here; settings are max_batch_size"),
        ('{"response_cache": {"enable": true}}', "INVALID_ARGUMENT", "response_cache.enable is not offered here"),
        ('{"model_warmup": [{"name": "w"}]}', "INVALID_ARGUMENT", "model_warmup.name is not offered here"),
        ('{"parameters": {"a": {"string_value": "b"}}}', "INVALID_ARGUMENT", "parameters is not offered here"),
        ('{"version_policy": {"latest": {}}}', "INVALID_ARGUMENT", "version_policy.latest is not offered here"),
        (
            '{"dynamic_batching": {"preferred_batch_size": [4]}}',
            "INVALID_ARGUMENT",
            "dynamic_batching.preferred_batch_size is not offered here",
        ),
        (
            '{"dynamic_batching": {"default_queue_policy": {"allow_timeout_override": false}}}',
            "INVALID_ARGUMENT",
            "dynamic_batching.default_queue_policy.allow_timeout_override: got false",
        ),
        ('{"dynamic_batching": {"delay": 1}}', "INVALID_ARGUMENT", "delay"),
        (
            '{"platform": "tensorrt_plan"}',
            "FAILED_PRECONDITION",
            "'platform': got \"tensorrt_plan\", expected onnxruntime_onnx",
        ),
        ('{"name": "other"}', "INVALID_ARGUMENT", "name: got 'other', expected 'fixed'"),
        (
            '{"max_batch_size": -1}',
            "INVALID_ARGUMENT",
            "max_batch_size: got -1, expected auto or a whole number from 0",
        ),
        ('{"max_batch_size": 1, "max_batch_size": 2}', "INVALID_ARGUMENT", "max_batch_size"),
        ('{"instance_group": [{"count": 1}, {"count": 1}]}', "INVALID_ARGUMENT", "instance_group: got 2 groups"),
        ('{"instance_group": [{"count": 1, "kind": "KIND_GPU"}]}', "FAILED_PRECONDITION", "got KIND_GPU"),
        (
            '{"input": [{"name": "x", "data_type": "TYPE_INT64", "dims": [4]}]}',
            "FAILED_PRECONDITION",
            "config field 'input' describes x TYPE_INT64 [4], and the model has x TYPE_FP32 [4]",
        ),
        (
            '{"dynamic_batching": {"default_priority_level": 3, "priority_levels": 2}}',
            "INVALID_ARGUMENT",
            "default_priority is 3, expected at most priority_levels",
        ),
    ],
)
def test_a_config_that_asks_for_what_is_not_here_is_refused_by_name(
    client: triton.InferenceServerClient, root: Path, config: str, code: str, text: str
) -> None:
    if not (root / "fixed").exists():
        put(root, "fixed", 1, times(2))
        client.load_model("fixed")
    got_code, got_text = refusal(client.load_model, "fixed", config=config)
    assert (got_code, text in got_text) == (code, True), got_text
    assert ask(client, "fixed") == 2


def test_files_of_the_request_are_the_model_until_the_next_load_without_them(
    client: triton.InferenceServerClient, root: Path
) -> None:
    put(root, "sent", 1, times(2))
    client.load_model("sent")
    files = {"file:5/model.onnx": times(7), "file:5/labels.txt": b"a"}
    client.load_model("sent", config='{"max_batch_size": 4}', files=files)
    assert ask(client, "sent") == 7
    assert index(client, "sent") == {"1": ("UNAVAILABLE", "unloaded"), "5": ("READY", "")}
    assert client.get_model_config("sent").config.max_batch_size == 4
    client.load_model("sent")
    assert ask(client, "sent") == 2
    assert index(client, "sent") == {"1": ("READY", ""), "5": ("UNAVAILABLE", "unloaded")}


def test_a_model_may_be_made_of_sent_files_alone(client: triton.InferenceServerClient, root: Path) -> None:
    client.load_model("only_sent", config="{}", files={"file:1/model.onnx": times(9)})
    assert ask(client, "only_sent") == 9
    assert not (root / "only_sent").exists()
    client.unload_model("only_sent")
    assert refusal(client.load_model, "only_sent")[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("files", "config", "text"),
    [
        ({"file:1/model.onnx": b"x"}, None, "parameter 'config' is missing"),
        ({"file:../../1/model.onnx": b"x"}, "{}", "expected file:<version>/<name>"),
        ({"file:1/..": b"x"}, "{}", "expected file:<version>/<name>"),
        ({"file:0/model.onnx": b"x"}, "{}", "expected file:<version>/<name>"),
        ({"file:1/a/b": b"x"}, "{}", "expected file:<version>/<name>"),
        ({"file:1/" + "x" * 300: b"x"}, "{}", "expected file:<version>/<name>"),
        ({"files:1/model.onnx": b"x"}, "{}", "is unknown, expected config or file:<version>/<name>"),
        ({"config": b"x"}, None, "parameter 'config': got bytes"),
    ],
)
def test_files_that_cannot_be_one_models_are_refused(
    client: triton.InferenceServerClient, files: dict[str, bytes], config: str | None, text: str
) -> None:
    code, got = refusal(client.load_model, "sent_wrongly", config=config, files=files)
    assert (code, text in got) == ("INVALID_ARGUMENT", True), got
    assert index(client, "sent_wrongly") == {}


def test_sent_files_that_are_no_model_fail_with_the_reason(client: triton.InferenceServerClient) -> None:
    code, text = refusal(client.load_model, "sent_broken", config="{}", files={"file:1/model.onnx": b"no model"})
    assert code == "FAILED_PRECONDITION"
    assert "version 1: " in text


def test_an_empty_repository_can_be_served_and_filled(serve: Serve, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    gateway = serve(root, "--model-control")
    with triton.InferenceServerClient(gateway.grpc_url) as client:
        assert not client.is_server_ready()
        put(root, "late", 1, times(2))
        client.load_model("late")
        assert client.is_server_ready()
        assert ask(client, "late") == 2


def test_nothing_that_was_sent_is_left_behind(serve: Serve, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    put(tmp_path / "models", "m", 1, times(1))
    gateway = serve(tmp_path / "models", "--model-control", env={"TMPDIR": str(scratch)})
    with triton.InferenceServerClient(gateway.grpc_url) as client:
        for factor in range(2, 5):
            client.load_model("m", config="{}", files={"file:1/model.onnx": times(factor)})
        assert len(list(scratch.glob("*/tmp*"))) == 1  # the others were replaced
        (folder,) = scratch.glob("gateway-*")
        assert folder.stat().st_mode & 0o077 == 0
        refusal(client.load_model, "m", config="{}", files={"file:1/model.onnx": b"no model"})
        assert len(list(scratch.glob("*/tmp*"))) == 1
        client.unload_model("m")
        assert list(scratch.glob("*/tmp*")) == []
    assert gateway.stop() == 0
    assert list(scratch.glob("gateway-*")) == []

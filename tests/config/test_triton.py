"""model.yaml's `triton:` and a version's triton.yaml: what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.model import ModelConfig, load_model_config
from gateway.config.triton import Triton, join_address, settings_of, split_address
from gateway.errors import ConfigError, LoadError


def model(tmp_path: Path, text: str) -> ModelConfig:
    (tmp_path / "model.yaml").write_text(text)
    return load_model_config(tmp_path)


def test_endpoints_are_short_or_long_and_have_tritons_port(tmp_path: Path) -> None:
    text = "backend: triton\ntriton: {endpoints: [a, 'b:9', {address: '10.0.0.1', weight: 2}, '[::1]:7']}"
    config = model(tmp_path, text)
    found = [(each.address, each.weight) for each in config.triton.endpoints]
    assert found == [("a:8001", 1.0), ("b:9", 1.0), ("10.0.0.1:8001", 2.0), ("[::1]:7", 1.0)]
    assert config.batching.by == "gateway"


@pytest.mark.parametrize("written", ["remote", "{by: remote}"])
def test_batching_can_be_left_to_the_servers(tmp_path: Path, written: str) -> None:
    assert model(tmp_path, f"batching: {written}").batching.by == "remote"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{endpoints: ['http://a:8001']}", "expected HOST:PORT"),
        ("{endpoints: ['a:0']}", "expected HOST:PORT"),
        ("{endpoints: ['a:70000']}", "expected HOST:PORT"),
        ("{endpoints: [a, 'a:8001']}", "endpoints has a:8001 twice"),
        ("{endpoints: [a], dns: b}", "endpoints and dns are both given"),
        ("{endpoints: [{address: a, weight: 0}]}", "weight"),
        ("{tls: {cert: a.pem}}", "cert and key go together"),
        ("{metadata: {Authorization: x}}", "lower case"),
        ("{metadata: {grpc-timeout: x}}", "no grpc- before"),
        ("{metadata: {a: {env: X, file: y}}}", "triton.metadata.a"),
        ("{timeout: 0}", "more than 0"),
        ("{version: '01'}", "version"),
        ("{hedged: true}", "hedge"),
        ("{shared_memory: always}", "expected auto, off or on"),
        ("{shared_memory: 1}", "expected auto, off or on"),
        ("{shared_memory_limit: 1kB}", "expected 64KiB or more"),
        ("{shared_memory_limit: much}", "a size such as"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_field(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        model(tmp_path, f"backend: triton\ntriton: {text}")
    assert "triton" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("", "auto"), ("on", "on"), ("off", "off"), ("'on'", "on"), ("auto", "auto"), ("true", "on")],
)
def test_shared_memory_is_a_word_though_yaml_takes_it_for_a_switch(tmp_path: Path, written: str, meant: str) -> None:
    text = f"{{shared_memory: {written}, shared_memory_limit: 1GiB}}" if written else ""
    found = model(tmp_path, f"backend: triton\ntriton: {text}").triton
    assert found.shared_memory == meant
    assert found.shared_memory_limit == (1 << 30 if written else 256 << 20)
    assert Triton.model_validate(found.model_dump(mode="json")) == found


def test_a_versions_own_file_is_laid_over_the_models(tmp_path: Path) -> None:
    common = Triton.model_validate({"endpoints": ["a"], "model": "big", "timeout": "2s"})
    assert settings_of(tmp_path, common) is common
    (tmp_path / "triton.yaml").write_text("version: '3'\ndns: fleet:9")
    own = settings_of(tmp_path, common)
    assert (own.endpoints, own.dns, own.model, own.version, own.attempt_s) == ((), "fleet:9", "big", "3", 2.0)


def test_secrets_come_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("T1", "here")
    wish = {"a": "plain", "b": {"env": "T1"}, "c": {"file": str(tmp_path / "token")}}
    assert Triton.model_validate({"metadata": wish}).headers() == (("a", "plain"), ("b", "here"), ("c", "s3cret"))
    monkeypatch.delenv("T1")
    with pytest.raises(LoadError, match="no variable T1"):
        Triton.model_validate({"metadata": wish}).headers()


@pytest.mark.parametrize("address", ["a:1", "[::1]:8001", "triton-0.triton.svc:65535"])
def test_an_address_is_cut_and_put_together(address: str) -> None:
    assert join_address(*split_address(address)) == address

"""What may be set for a deployment, by flag and file; what is refused before a process starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.config.deployment import FLAGS, Deployment, DeploymentFile, WorkerOptions, load_deployment
from gateway.config.limits import Limits
from gateway.errors import ConfigError


def refusal(deployment: Deployment) -> str:
    with pytest.raises(ConfigError) as caught:
        deployment.check()
    return str(caught.value)


def test_defaults_are_tritons_ports_on_this_machine_only(tmp_path: Path) -> None:
    deployment = load_deployment(None, {"models": tmp_path})
    assert (deployment.host, deployment.port, deployment.grpc_port, deployment.control_port) == (
        "127.0.0.1",
        8000,
        8001,
        8002,
    )
    assert (deployment.workers, deployment.drain_s, deployment.log_format) == (1, 30.0, "console")
    assert deployment.limits == Limits()
    deployment.check()


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("models: shop\nworkers: 3\nport: 9000\ndrain_s: 2min\nlimits: {max_connections: 5}\n")
    deployment = load_deployment(config, {"workers": 2, "port": None})
    assert (deployment.workers, deployment.port, deployment.grpc_port) == (2, 9000, 8001)
    assert deployment.drain_s == 120.0
    assert deployment.limits.max_connections == 5
    assert deployment.models == tmp_path / "shop"  # relative to the file that says it


def test_models_may_come_from_the_flag_alone_beside_a_file(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("workers: 2\n")
    assert load_deployment(config, {"models": Path("here")}).models == Path("here")


def test_a_fault_of_the_file_names_file_and_field(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("grpc_prt: 1\nworkers: many\nlimits: {max_connections: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_deployment(config, {"models": tmp_path})
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{config}: ") for line in lines)
    assert f"{config}: grpc_prt: unknown field, expected grpc_port" in lines
    assert f"{config}: limits.max_connections: got 0, expected a number above 0" in lines


def test_every_field_has_a_flag_but_those_that_are_mappings() -> None:
    assert set(DeploymentFile.model_fields) - {"limits", "shadows", "drift", "webhooks"} == set(FLAGS)


def test_worker_options_survive_their_json(tmp_path: Path) -> None:
    deployment = Deployment(models=tmp_path, drain_s=0.25, tls_cert=Path("c"), limits=Limits(max_connections=7))
    options = WorkerOptions(**deployment.model_dump(), worker=3, accept="when_ready", control_fd=7, lifeline_fd=8)
    assert WorkerOptions.model_validate_json(options.model_dump_json()) == options


def test_two_ports_alike_are_refused_and_two_zeros_are_not(tmp_path: Path) -> None:
    Deployment(models=tmp_path, port=0, grpc_port=0, control_port=0).check()
    text = refusal(Deployment(models=tmp_path, port=8002))
    assert text == "--control-port 8002: is also --port; give each its own port (0 = any free one)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    assert "permission denied; make it readable" in refusal(Deployment(models=locked))


# --- TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.key with a.pem, b.key with b.pem, and secret.key under a password."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its keys with the openssl command")
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=90)

    for name in ("a", "b"):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", f"{name}.key"]
        openssl("req", "-x509", "-nodes", *key, "-out", f"{name}.pem", "-subj", "/CN=localhost", "-days", "2")
    openssl("pkey", "-in", "a.key", "-aes256", "-passout", "pass:hidden", "-out", "secret.key")
    (folder / "text.pem").write_text("not a key\n")
    return folder


def with_tls(folder: Path, cert: str | None, key: str | None) -> Deployment:
    return Deployment(models=folder, tls_cert=cert and folder / cert, tls_key=key and folder / key)


def test_a_certificate_with_its_key_is_accepted(keys: Path) -> None:
    with_tls(keys, "a.pem", "a.key").check()


@pytest.mark.parametrize(
    ("cert", "key", "text"),
    [
        ("a.pem", None, "--tls-cert: given without --tls-key; TLS needs both (PEM files), plain text needs neither"),
        (None, "a.key", "--tls-key: given without --tls-cert; TLS needs both"),
        ("none.pem", "a.key", "--tls-cert {keys}/none.pem: no such file; expected the certificate chain as PEM"),
        ("a.pem", "none.key", "--tls-key {keys}/none.key: no such file; expected the private key as PEM"),
        ("a.pem", ".", "--tls-key {keys}: is no file; expected the private key as PEM"),
        ("a.pem", "b.key", "--tls-key {keys}/b.key: does not belong to --tls-cert {keys}/a.pem"),
        ("a.pem", "secret.key", "--tls-key {keys}/secret.key: is encrypted; decrypt it first"),
        ("text.pem", "a.key", "--tls-cert {keys}/text.pem, --tls-key {keys}/a.key: not a PEM certificate and its key"),
    ],
)
def test_tls_files_that_cannot_work_are_refused_by_flag(
    keys: Path, cert: str | None, key: str | None, text: str
) -> None:
    assert refusal(with_tls(keys, cert, key)).startswith(text.format(keys=keys))


def test_shadows_are_given_time_and_tolerance_by_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("shadows: {least_time_s: 0.5, relative_tolerance: 0.01}")
    shadows = load_deployment(file, {"models": tmp_path}).shadows
    assert (shadows.least_time_s, shadows.time_factor) == (0.5, 2.0)
    assert (shadows.relative_tolerance, shadows.absolute_tolerance) == (0.01, 1e-6)
    file.write_text("shadows: {relative_tolerance: -1}")
    with pytest.raises(ConfigError, match="relative_tolerance"):
        load_deployment(file, {"models": tmp_path})

"""`gateway serve` and `gateway worker` up to the point where processes start: flags, file, refusals and exit codes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.config.deployment import FLAGS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_help_names_every_flag_and_shows_how_to_begin() -> None:
    text = run("serve", "--help").stdout
    flags = [name.removeprefix("--") for name in FLAGS.values()] + ["config"]
    assert not [flag for flag in flags if f"--{flag} " not in text]
    assert "gateway serve --models shop" in text
    assert {"serve", "worker", "control"} <= set(re.findall(r"^  (\w+)  ", run("--help").stdout, re.MULTILINE))


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("gateway ")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "--models: missing; name the folder that holds <model>/<version>/model.onnx, or set `models` in --config"),
        (["--models", "nowhere"], "--models nowhere: no such folder; point --models at a folder that holds <model>/"),
        (["--models", "FILE"], "is a file, expected a folder; point --models at a folder"),
        (["--models", "DIR", "--port", "70000"], "--port: got 70000, expected 65535 or less"),
        (["--models", "DIR", "--grpc-port", "8000"], "--grpc-port 8000: is also --port; give each its own port"),
        (["--models", "DIR", "--workers", "0"], "--workers: got 0, expected 1 or more"),
        (["--models", "DIR", "--drain", "soon"], '--drain: got "soon", expected a duration such as'),
        (["--models", "DIR", "--log-format", "xml"], '--log-format: got "xml", expected console or json'),
        (["--models", "DIR", "--tls-cert", "c.pem"], "--tls-cert: given without --tls-key; TLS needs both"),
        (["--models", "DIR", "--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_in_one_line_that_names_it(tmp_path: Path, flags: list[str], text: str) -> None:
    (tmp_path / "file").touch()
    places = {"DIR": str(tmp_path), "FILE": str(tmp_path / "file")}
    result = run("serve", *(places.get(flag, flag) for flag in flags))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_word_where_a_number_belongs_is_a_usage_error() -> None:
    result = run("serve", "--port", "http")
    assert result.exit_code == 2
    assert "'--port'" in result.stderr


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_port_in_use_is_refused_with_1(tmp_path: Path, log_format: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        arguments = ["--models", str(tmp_path), "--port", "0", "--grpc-port", number, "--log-format", log_format]
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr if log_format == "console" else json.loads(done.stderr)["error"]
    assert f"--grpc-port {number}: in use on 127.0.0.1; stop what listens there" in line


@pytest.mark.parametrize(
    ("command", "options", "field"),
    [
        ("worker", '{"models": "x", "accept": "never"}', "accept"),
        ("control", '{"models": "x", "link_fd": "a"}', "link_fd"),
    ],
)
def test_worker_and_control_refuse_options_that_they_cannot_read(command: str, options: str, field: str) -> None:
    result = run(command, "--options", options)
    assert result.exit_code == 2
    assert f"--options: {field}: " in result.stderr
    assert "this option is for `gateway serve`" in result.stderr


def test_a_control_plane_alone_must_be_told_where_the_store_is(tmp_path: Path) -> None:
    result = run("control", "--models", str(tmp_path))
    assert result.exit_code == 2
    assert "error: --state: missing, and --store too; name the store that the workers share" in result.stderr


def test_a_store_that_is_no_known_database_is_refused_without_showing_its_password(tmp_path: Path) -> None:
    result = run("serve", "--models", str(tmp_path), "--store", "mysql://me:secret@host/db")
    assert result.exit_code == 2
    assert '--store: got "mysql:...", expected sqlite:///' in result.stderr
    assert "secret" not in result.stderr

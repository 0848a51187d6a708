"""`gateway bench` as a person or a pipeline runs it: against a real gateway, and against servers that are not well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.loadtest import report
from tests.support.gatewayprocess import ROOT, GatewayProcess, free_port

QUICK = ("--seconds", "0.5", "--warmup", "0.2")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)


@pytest.fixture(scope="module")
def address(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with GatewayProcess(trained_models, tmp_path_factory.mktemp("bench")) as gateway:
        yield f"127.0.0.1:{gateway.port}"


def result_of(*arguments: object, code: int = 0) -> dict[str, Any]:
    done = bench(*arguments, "--json")
    assert done.returncode == code, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_closed_loop_says_how_many_were_answered_and_that_all_were_right(address: str) -> None:
    result = result_of(address, "-m", "digits", *QUICK)
    assert (result["failed"], result["lost"], result["answers"]["wrong"]) == ({}, {}, 0)
    assert result["ok"] > 0
    assert result["requests_per_s"] == pytest.approx(result["ok"] / result["seconds"], rel=0.01)
    assert result["answers"]["right"] >= result["ok"]
    assert result["latency_us"]["p50"] <= result["latency_us"]["p99"] <= result["latency_us"]["max"]
    assert 0 < result["share_of_ceiling"] == pytest.approx(result["requests_per_s"] / result["ceiling_per_s"], rel=0.01)


def test_an_open_loop_sends_at_its_rate(address: str) -> None:
    result = result_of(address, "-m", "digits", *QUICK, "--rate", 500, "--no-ceiling")
    assert result["loop"] == "open"
    assert result["ceiling_per_s"] is None
    assert 150 <= result["ok"] <= 350  # a Poisson count of mean 250, and what the warm-up left in flight


def test_rows_of_a_file_are_sent_and_a_pinned_version_answers(address: str, trained_models: Path) -> None:
    golden = trained_models / "wine" / "1" / "golden.npz"
    result = result_of(address, "-m", "wine", "--version", 1, "--data", golden, "--rows", 4, *QUICK, "--no-ceiling")
    assert set(result["answers"]["by_version"]) == {"1"}
    assert result["answers"]["wrong"] == 0


def test_lines_for_people_say_the_same(address: str) -> None:
    done = bench(address, "-m", "breast_cancer", *QUICK)
    assert done.returncode == 0, done.stderr
    for part in ("8 x 16 (connections x streams), closed loop", "requests/s", "p99.9", "0 wrong", "ceiling"):
        assert part in done.stdout


def test_a_result_is_kept_and_one_below_the_baseline_fails(address: str, tmp_path: Path) -> None:
    kept = tmp_path / "base.json"
    result_of(address, "-m", "digits", *QUICK, "--no-ceiling", "--save", kept)
    fast = json.loads(kept.read_text())
    kept.write_text(json.dumps({**fast, "requests_per_s": 1e9}))
    done = bench(address, "-m", "digits", *QUICK, "--no-ceiling", "--compare", kept)
    assert done.returncode == 1
    assert "of the baseline" in done.stderr
    kept.write_text(json.dumps({**fast, "requests_per_s": 1.0}))
    done = bench(address, "-m", "digits", *QUICK, "--no-ceiling", "--compare", kept)
    assert done.returncode == 0, done.stderr
    done = bench(address, "-m", "digits", *QUICK, "--no-ceiling", "--streams", 2, "--compare", kept)
    assert done.returncode == 2
    assert "streams: got 2, the baseline has 16" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("-m", "nope"), 1, "answered ModelMetadata with NOT_FOUND"),
        ((), 1, "--model: not given, and"),
        (("-m", "digits", "--data", "absent.csv"), 2, "absent.csv"),
        (("-m", "digits", "--compare", "absent.json"), 2, "--compare absent.json: no such file or directory"),
        (("-m", "digits", "--rate", "0"), 2, "--rate"),
    ],
)
def test_each_mistake_is_said_before_any_load(address: str, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = bench(address, *arguments, *QUICK)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_at_the_address_is_said() -> None:
    done = bench(f"127.0.0.1:{free_port()}", "-m", "digits", *QUICK)
    assert done.returncode == 1
    assert "nothing answers at" in done.stderr


def test_a_baseline_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="is no result of gateway bench"):
        report.read(path)

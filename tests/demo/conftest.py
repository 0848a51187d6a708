from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Demo = Callable[..., subprocess.CompletedProcess[str]]


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """This interpreter in the root of the tree, named last on its path: under PYTHONSAFEPATH it is not there."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)


@pytest.fixture(scope="session")
def run_demo() -> Demo:
    """`python -m demo` with these arguments, as a person runs it."""

    return functools.partial(run_python, "-m", "demo")


@pytest.fixture(scope="session")
def demo_models(run_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with all demo models; read only."""
    root = tmp_path_factory.mktemp("demo") / "models"
    done = run_demo(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6
    return root

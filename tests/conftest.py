"""One running gateway for all tests that only ask, and a factory of gateways for those that need their own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import pytest

from tests.support import servedmodels
from tests.support.gatewayprocess import ROOT, GatewayProcess
from tests.support.oip import Client, connect

Serve = Callable[..., GatewayProcess]

hypothesis.settings.register_profile(
    "gateway",
    deadline=None,  # how long an example takes is the machine's affair
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),  # there a red run must be the change's; by hand each run looks elsewhere
    print_blob=True,
)
hypothesis.settings.load_profile("gateway")

OF_PROCESSES = ("bench", "cli", "control", "demo", "fleet", "loadtest", "observability", "rollouts_e2e", "serving")
"""Their tests start real processes, whose time they share with whatever else the machine does."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rerun-processes", action="store_true", help="run a failed test of real processes once more, and report that"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--rerun-processes"):
        here = Path(__file__).parent
        for item in items:
            if item.path.relative_to(here).parts[0] in OF_PROCESSES:
                item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def trained_models() -> Path:
    """The demo models, trained once for each state of demo/ and kept in build/; read only."""
    return _made("", "demo", sorted((ROOT / "demo").glob("*.py")))


def _made(name: str, module: str, sources: list[Path]) -> Path:
    state = hashlib.sha256()
    for file in sources:
        state.update(file.read_bytes())
    for package in ("scikit-learn", "skl2onnx", "numpy"):
        state.update(version(package).encode())
    folder = ROOT / "build" / "test-models" / (name + state.hexdigest()[:12])
    # Behind what is there already, which in a debug run is the debug build; the source tree alone has demo/.
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    command = [sys.executable, "-m", module, str(folder)]
    environment = os.environ | {"PYTHONPATH": path}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:  # of two runs side by side one makes them
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=350)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def released_models() -> Path:
    """models/ and rows/ of `make demo`, made as those above; read only."""
    return _made("releases", "demo.rollouts.models", sorted((ROOT / "demo").rglob("*.py")))


@pytest.fixture(scope="session")
def served_models(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `server` serves: the demo models, and an odd one for each behaviour."""
    root = tmp_path_factory.mktemp("served") / "models"
    root.mkdir()
    servedmodels.copy_demo_models(trained_models, root)
    servedmodels.store_odd_models(root)
    return root


@pytest.fixture(scope="session")
def server(served_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with one worker and default limits. Tests share it: they ask, and change nothing."""
    with GatewayProcess(served_models, tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="session")
def channel_of_server(server: GatewayProcess) -> Iterator[grpc.Channel]:
    with connect(server.grpc_url) as channel:
        yield channel


@pytest.fixture(scope="session")
def client(channel_of_server: grpc.Channel) -> Client:
    """A client of `server`."""
    return Client(channel_of_server)


def _factory(folder: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def serve(models: Path, *flags: str, **wishes: Any) -> GatewayProcess:
            number = len(list(folder.glob("server-*")))
            return stack.enter_context(GatewayProcess(models, folder / f"server-{number}", *flags, **wishes))

        yield serve


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """serve(models, *flags, config=None, env=None, wait=True) -> GatewayProcess, which ends with the test."""
    yield from _factory(tmp_path)


@pytest.fixture(scope="module")
def serve_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """The same for one server that a file's tests share."""
    yield from _factory(tmp_path_factory.mktemp("module"))

"""ONNX Runtime does not phone home from the gateway: it leaves no session file where it keeps its telemetry."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import onnxmodels


def test_a_loaded_model_leaves_no_telemetry_session(tmp_path: Path) -> None:
    model = onnxmodels.store(tmp_path / "models", "m", 1, onnxmodels.linear())
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    load = (
        "import sys, pathlib; from gateway.backends import onnx; from gateway.config.model import ModelConfig; "
        "onnx.load(pathlib.Path(sys.argv[1]), ModelConfig())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", load, str(model)], env=environment, check=True, timeout=90)
    assert list(scratch.iterdir()) == []

"""The hand-kept stubs say what the compiled modules have: all of it, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in (ROOT / "ext/gateway/native").glob("*.pyx"))

ALLOWED = r"""
.*\.__(reduce|setstate)_cython__
.*\.__pyx_.*
.*\.__test__
.*\.__buffer__
gateway\.native\.http2\.SessionLimits\.__init__
"""
"""What Cython adds; the buffer protocol, which Python shows from 3.12 on; and a signature that Cython does not tell."""


def test_every_native_module_has_a_stub_and_no_stub_is_left_over():
    assert sorted(path.stem for path in (ROOT / "gateway/native").glob("*.pyi")) == MODULES


@pytest.mark.slow
def test_stubs_are_what_the_modules_have(tmp_path):
    allowlist = tmp_path / "allowed"
    allowlist.write_text(ALLOWED)
    command = [
        sys.executable,
        "-m",
        "mypy.stubtest",
        "--concise",
        "--ignore-disjoint-bases",
        "--ignore-unused-allowlist",
    ]
    modules = [f"gateway.native.{name}" for name in MODULES]
    done = subprocess.run(
        [*command, "--allowlist", str(allowlist), *modules], cwd=ROOT, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr

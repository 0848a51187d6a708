"""Virtual environments of their own for what is measured or tested beside the gateway and cannot live in its own: other
servers and SDKs pin other versions of the same packages.

    python -m bench.environments mlserver kserve     makes them, in ~/.cache/gateway-bench (or $GATEWAY_BENCH_CACHE)
    python -m bench.peers --install                  those of all peers
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from bench.errors import NotMeasured

REQUIREMENTS = {
    "mlserver": ("mlserver==1.7.1", "onnxruntime==1.31.1"),
    "kserve": ("kserve==0.21.0",),
    "grpcaio": ("grpcio==1.85.1", "protobuf==7.36.2", "uvloop==0.23.0", "onnxruntime==1.31.1"),
    "bentoml": ("bentoml==1.4.39", "onnxruntime==1.31.1"),
    "litserve": ("litserve==0.2.19", "onnxruntime==1.31.1"),
    "rayserve": ("ray[serve]==2.60.0", "onnxruntime==1.31.1"),
}


def folder(name: str) -> Path:
    cache = os.environ.get("GATEWAY_BENCH_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "gateway-bench") / name


def python(name: str) -> Path:
    """Its interpreter; NotMeasured with the cure when it was never made."""
    found = folder(name) / "bin" / "python"
    if not found.exists():
        raise NotMeasured(f"there is no environment {folder(name)}: make it with `python -m bench.environments {name}`")
    return found


def make(name: str) -> None:
    """Again, if it is there: pip changes only what differs."""
    if not (folder(name) / "bin" / "pip").exists():
        venv.create(folder(name), with_pip=True, symlinks=True, clear=True)
    packages = REQUIREMENTS[name]
    print(f"{folder(name)}: {', '.join(packages)}", flush=True)
    command = [str(python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(command, check=True)


def main() -> int:
    names = sys.argv[1:]
    unknown = [name for name in names if name not in REQUIREMENTS]
    if unknown or not names:
        print(f"bench.environments: got {unknown or 'no name'}, expected some of {', '.join(REQUIREMENTS)}")
        return 2
    for name in names:
        make(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

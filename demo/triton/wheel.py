"""Where tritonserver comes from: the wheel `nvidia-pytriton`, unpacked once into a cache folder outside the tree.

    python -m demo.triton setup

Outside any virtual environment, because the wheel's requirements are those of its launcher, which nobody needs here.
The unpacked wheel holds the server, its Python backend, and one stub for each Python: the process that runs a model.
The stub loads the libpython of its version, so models run in the Python of this virtual environment or not at all. They
need NumPy 1, as the wheel's metadata says: under NumPy 2 every output of a model arrives with zero bytes.
"""

from __future__ import annotations

import ctypes.util
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.7.0"
FILE = f"nvidia_pytriton-{VERSION}-py3-none-manylinux_2_35_x86_64.whl"
SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
PYTHONS = ("3.11", "3.12")
"""With a stub in the wheel, a NumPy 1 and this project's support."""
NUMPY = "1.26.4"
CURE = "get it with `.venv/bin/python -m demo.triton setup`"


class NoTriton(Exception):
    """tritonserver cannot run here, and why."""


@dataclass(frozen=True)
class Installation:
    """What a start of tritonserver needs."""

    binary: Path
    backends: Path
    """--backend-directory"""
    libraries: tuple[Path, ...]
    """LD_LIBRARY_PATH"""
    python_home: Path
    """PYTHONHOME of the models."""
    packages: Path
    """First on the sys.path of the models."""


def cache() -> Path:
    named = os.environ.get("GATEWAY_BENCH_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "gateway-bench") / f"tritonserver-{VERSION}"


def why_not() -> str:
    """Why this machine can never run it; empty: it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{sys.platform} on {platform.machine()}"
        return f"the tritonserver of nvidia-pytriton is for Linux on x86-64, and this is {here}"
    if _python() not in PYTHONS:
        return f"nvidia-pytriton {VERSION} runs models in Python {' or '.join(PYTHONS)}, and this is {_python()}"
    return ""


def find() -> Installation:
    """What `install` left. NoTriton says what is missing and the cure."""
    if reason := why_not():
        raise NoTriton(reason)
    root = cache()
    if not (root / "done").exists() or not _packages(root).exists():
        raise NoTriton(f"there is no tritonserver in {root}: {CURE}")
    return Installation(
        binary=root / "wheel" / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        backends=_backends(root),
        libraries=(_libpython(), root / "wheel" / "nvidia_pytriton.libs"),
        python_home=Path(sys.base_prefix),
        packages=_packages(root),
    )


def install() -> Installation:
    """Downloads and unpacks, unless that is done; of several at once one does it and the others wait."""
    if reason := why_not():
        raise NoTriton(reason)
    root = cache()
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            _unpack(root)
        if not _packages(root).exists():
            with tempfile.TemporaryDirectory(dir=root) as folder:
                _pip("install", "--target", f"{folder}/new", f"numpy=={NUMPY}")
                _packages(root).parent.mkdir(exist_ok=True)
                Path(folder, "new").rename(_packages(root))
    return find()


def _unpack(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)  # what an interrupted one left
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f"{root.name}-") as folder:
        new = Path(folder) / "new"
        file = _download(Path(folder))
        if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != SHA256:
            raise NoTriton(f"{FILE}: its SHA-256 is {found}, expected {SHA256}; not unpacked")
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(new / "wheel")  # which forgets who may execute
        server = new / "wheel" / "pytriton" / "tritonserver"
        (server / "bin" / "tritonserver").chmod(0o755)
        for version in PYTHONS:
            stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
            backend = new / "backends" / version / "python"
            shutil.copytree(server / "backends" / "python", backend)
            shutil.copy(stub, backend / stub.name)
            (backend / stub.name).chmod(0o755)
        (new / "done").touch()
        new.rename(root)


def _download(folder: Path) -> Path:
    print(f"downloading nvidia-pytriton {VERSION} (55 MB), for its tritonserver", flush=True)
    _pip("download", "--dest", str(folder), f"nvidia-pytriton=={VERSION}")
    return folder / FILE


def _pip(command: str, *wish: str) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        command,
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run([*pip, *wish], capture_output=True, text=True)
    if done.returncode:
        raise NoTriton(f"pip cannot {command} {wish[-1]}:\n{done.stderr}")


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _backends(root: Path) -> Path:
    return root / "backends" / _python()


def _packages(root: Path) -> Path:
    return root / "packages" / _python()


def _libpython() -> Path:
    """The folder of the shared library of this Python, which the stub loads."""
    name = f"libpython{_python()}.so.1.0"
    folders = [Path(str(sysconfig.get_config_var("LIBDIR"))), Path(sys.base_prefix) / "lib"]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders += [folder / str(multiarch) for folder in folders] if multiarch else []
    for folder in folders:
        if (folder / name).exists():
            return folder
    if ctypes.util.find_library(f"python{_python()}"):  # the loader knows where
        return Path("/usr/lib")
    raise NoTriton(
        f"{name} is not in {', '.join(map(str, folders))}: Triton's Python backend loads it; "
        f"on Debian: apt-get install libpython{_python()}"
    )

"""bench.micro.loops, compiled into build/bench when it or what it cimports has changed.

With the switches of the release build, against the native modules that are installed: they must be built first.
"""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from bench.errors import NotMeasured

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
NAME = "bench.micro.loops"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


@cache
def loops() -> ModuleType:
    """The compiled module. NotMeasured when it cannot be had, with the reason."""
    try:
        path = _build()
    except (Exception, SystemExit) as error:
        raise NotMeasured(f"{NAME} cannot be compiled: {error}") from error
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, ValueError) as error:  # ValueError: a type has another size than when it was compiled
        raise NotMeasured(f"{NAME} does not fit the native modules ({error}): run make build") from error
    sys.modules[NAME] = module
    return module


def _build() -> Path:
    import numpy
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    flags = subprocess.run(["pkg-config", "--cflags", "libnghttp2"], check=True, capture_output=True, text=True).stdout
    extension = Extension(
        NAME,
        [str(ROOT / "bench/micro/loops.pyx")],
        extra_compile_args=["-O2", *shlex.split(flags)],
        include_dirs=[numpy.get_include()],
        define_macros=[("CYTHON_WITHOUT_ASSERTIONS", "1"), ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )
    extensions = cythonize(
        [extension],
        include_path=[str(ROOT / "ext")],
        build_dir=str(BUILD / "c"),
        compiler_directives=DIRECTIVES,
        quiet=True,
    )
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp = str(BUILD), str(BUILD / "o")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(NAME))

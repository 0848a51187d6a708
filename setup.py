"""Builds ext/gateway/native/*.pyx into gateway.native.*; everything else about the package is in pyproject.toml.

Switches of the environment, 1 for on:
    GATEWAY_DEBUG     debug counters and assertions, -O1 -g
    GATEWAY_ANNOTATE  Cython's HTML beside the generated C: how much Python each line costs
    GATEWAY_COVERAGE  counts for gcov, by line of the .pyx: it sees code without the GIL too
    GATEWAY_SANITIZE  what gcc's -fsanitize= takes, e.g. address,undefined
    GATEWAY_NATIVE    0 leaves the native modules out: for `make build`, which compiles them on its own

Each variant has its own folder, build/{release,debug,coverage}. Only release builds in place; of the others put
build/<variant>/lib, a whole importable copy, first on PYTHONPATH (with PYTHONSAFEPATH=1, lest the source tree win).
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("ext/gateway/native")


def switch(name: str, default: str = "0") -> bool:
    return os.environ.get(f"GATEWAY_{name}", default) not in ("", "0")


DEBUG, ANNOTATE, COVERAGE = switch("DEBUG"), switch("ANNOTATE"), switch("COVERAGE")
SANITIZE = os.environ.get("GATEWAY_SANITIZE", "")
VARIANT = "coverage" if COVERAGE else "debug" if DEBUG or SANITIZE else "release"
BUILD = Path("build", VARIANT)

COMPILE = ["-O2" if VARIANT == "release" else "-O1", "-g", "-Wall", "-Wextra"]
# What generated C cannot satisfy: slots with arguments that they ignore, tables filled to the first null, METH_* casts,
# helpers that a module turns out not to need.
COMPILE += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
COMPILE += ["-Wno-unused-function"]
LINK: list[str] = []
MACROS: list[tuple[str, str | None]] = [("GATEWAY_DEBUG", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
if COVERAGE:
    COMPILE += ["--coverage"]
    LINK += ["--coverage"]
if SANITIZE:
    COMPILE += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    LINK += [f"-fsanitize={SANITIZE}"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": False,  # signatures are in the .pyi; here they would only slow the import
}

INSTALL = """Install or upgrade:
  Debian, Ubuntu   apt-get install libnghttp2-dev pkg-config
  Fedora           dnf install libnghttp2-devel pkgconf
  macOS            brew install nghttp2 pkg-config"""


def nghttp2_flags() -> tuple[list[str], list[str]]:
    """What to compile and to link with, from pkg-config. Ends the build with the cure when it cannot be had."""

    def ask(option: str) -> list[str]:
        command = [os.environ.get("PKG_CONFIG", "pkg-config"), option, "libnghttp2"]
        return shlex.split(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    need = "gateway's native modules need libnghttp2 with its headers"
    try:
        compile_flags, link_flags, (version,) = ask("--cflags"), ask("--libs"), ask("--modversion")
    except FileNotFoundError as error:
        sys.exit(f"{need}, found by pkg-config: there is no {error.filename} on PATH. {INSTALL}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{need}; pkg-config says: {error.stderr.strip() or error}\n{INSTALL}")
    guard = "nghttp2_option_set_stream_reset_rate_limit"
    compiler = [*shlex.split(os.environ.get("CC", "cc")), *compile_flags, "-x", "c", "-fsyntax-only", "-"]
    probe = f"#include <nghttp2/nghttp2.h>\nvoid *guard(void) {{ return (void *){guard}; }}\n"
    try:
        subprocess.run(compiler, input=probe, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        sys.exit(
            f"gateway's native modules need a C compiler: there is no {error.filename} on PATH (set CC, or install gcc)"
        )
    except subprocess.CalledProcessError as error:
        if guard not in error.stderr:
            sys.exit(f"{need}; this failed: {shlex.join(compiler)}\n{error.stderr}")
        sys.exit(
            f"libnghttp2 {version} is too old: without {guard} a client can exhaust the server by rapid reset "
            f"(CVE-2023-44487). 1.57 has it, so has Debian 12's patched 1.52. {INSTALL}"
        )
    return compile_flags, link_flags


def note_flags(*flags: object) -> Path:
    """The file that says what this build is made with, renewed only when that changed: what is older is made again."""
    note = BUILD / "flags"
    text = repr((sys.version, *(os.environ.get(name) for name in ("CC", "CFLAGS", "LDFLAGS")), *flags))
    if not note.exists() or note.read_text() != text:
        BUILD.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
    return note


class BuildNative(build_ext):
    """Runs Cython and pkg-config when something is to be compiled, not when pip only asks for metadata."""

    def finalize_options(self) -> None:
        if VARIANT != "release" and (self.inplace or self.editable_mode):
            sys.exit(f"in place, the {VARIANT} variant would pass for the release build: use 'setup.py build'")
        if any(extension.sources[0].endswith(".pyx") for extension in self.distribution.ext_modules or []):
            self.distribution.ext_modules = self.cythonized(self.distribution.ext_modules)
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def cythonized(self, extensions: list[Extension]) -> list[Extension]:
        import Cython
        import numpy
        from Cython.Build import cythonize

        uses_nghttp2 = any("cnghttp2" in file.read_text() for file in SOURCES.glob("*.p[xy][xd]"))
        flags, libraries = nghttp2_flags() if uses_nghttp2 else ([], [])
        flags = [*flags, f"-I{numpy.get_include()}", "-DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION"]
        note = note_flags(Cython.__version__, DIRECTIVES, ANNOTATE, COMPILE, LINK, MACROS, flags, libraries)
        generated = [BUILD / "c" / Path(extension.sources[0]).with_suffix(".c") for extension in extensions]
        is_stale = any(file.exists() and file.stat().st_mtime < note.stat().st_mtime for file in generated)
        for extension in extensions:
            extension.extra_compile_args = [*COMPILE, *flags]
            extension.extra_link_args = [*LINK, *libraries]
            extension.define_macros = MACROS
        options = {
            "compiler_directives": DIRECTIVES,
            "annotate": ANNOTATE,
            "emit_linenums": COVERAGE,
            "force": is_stale,
        }
        compilable = cythonize(extensions, include_path=["ext"], build_dir=str(BUILD / "c"), **options)
        for extension in compilable:
            extension.depends += [str(note), *map(str, SOURCES.glob("*.h"))]
        return compilable


modules = sorted(SOURCES.glob("*.pyx")) if switch("NATIVE", default="1") else []
setup(
    ext_modules=[Extension(f"gateway.native.{source.stem}", [str(source)]) for source in modules],
    cmdclass={"build_ext": BuildNative},
    options={"build": {"build_base": str(BUILD), "build_lib": str(BUILD / "lib")}},
)

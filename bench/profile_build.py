"""`python -m bench.profile_build`: seconds and memory of `gateway profile build` on made-up rows.

One process a line, closed loop: wall clock, processor time and the peak of its memory. With `--model` its answers are
part of it; the model is a linear one of as many columns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

GROUP_ROWS = 250_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile_build", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, nargs="+", default=[1, 30])
    parser.add_argument("--formats", nargs="+", default=["parquet"], choices=["parquet", "csv"])
    parser.add_argument("--model", action="store_true", help="ask the model for its answers, too")
    options = parser.parse_args()
    print(
        f"{'format':8} {'rows':>10} {'columns':>7} {'MB':>6} {'wall s':>7} {'cpu s':>7} {'ns/value':>8} {'peak MB':>7}"
    )
    for n_columns in options.columns:
        with tempfile.TemporaryDirectory() as folder:
            models = write_model(Path(folder), n_columns)
            for kind in options.formats:
                path = Path(folder) / f"rows.{kind}"
                write_rows(path, options.rows, n_columns)
                wall_s, cpu_s, peak = measured(models, path, options.model)
                size, each_ns = path.stat().st_size / 1e6, cpu_s / options.rows / n_columns * 1e9
                line = f"{kind:8} {options.rows:10} {n_columns:7} {size:6.0f} {wall_s:7.1f} {cpu_s:7.1f} {each_ns:8.0f}"
                print(f"{line} {peak / 1e6:7.0f}", flush=True)
                path.unlink()
    return 0


def write_model(folder: Path, n_columns: int) -> Path:
    from tests.support import onnxmodels

    onnxmodels.store(folder / "models", "m", 1, onnxmodels.linear(n_columns, 2))
    return folder / "models"


def write_rows(path: Path, n_rows: int, n_columns: int) -> None:
    schema = pa.schema([(f"c{at}", pa.float32()) for at in range(n_columns)])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema) if path.suffix == ".parquet" else pa.csv.CSVWriter(path, schema) as writer:
        for first in range(0, n_rows, GROUP_ROWS):
            n = min(GROUP_ROWS, n_rows - first)
            columns = [rng.lognormal(2, 0.5, n).astype(np.float32) for _ in range(n_columns)]
            writer.write_table(pa.table(columns, schema))


def measured(models: Path, data: Path, with_model: bool) -> tuple[float, float, int]:
    """Wall and processor seconds, peak bytes."""
    command = [sys.executable, "-m", "gateway", "profile", "build", str(data), "--model", "m", "--models", str(models)]
    command += [] if with_model else ["--no-run-model"]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {child.returncode}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())

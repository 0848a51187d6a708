"""`python -m demo.traffic MODEL`: rows of a demo model's own data as requests, one column drifted if you like.

Rows come from the version's reference.npz, drawn with replacement. `--drift` moves one column by so many of its
deviations, or makes a share of it NaN: `--drift 'mean radius=+1.5' --after 120`, `--drift 'hue=nan:0.2'`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from gateway import pb
from gateway.cli.tensors import encode
from gateway.monitoring.profile import load_profile

SERVICE = "inference.GRPCInferenceService"
DATATYPES = {"f": "FP32", "i": "INT64", "U": "BYTES"}
Change = Callable[[dict[str, Any], np.random.Generator], None]


def main() -> int:
    options = parse_arguments()
    folder: Path = options.models / options.model / options.version
    with np.load(folder / "reference.npz") as file:
        inputs = {name.removeprefix("input:"): file[name] for name in file.files if name.startswith("input:")}
    change = parse_drift(options.drift, folder, inputs) if options.drift else None
    rng = np.random.default_rng(options.seed)
    n_rows = len(next(iter(inputs.values())))
    with grpc.insecure_channel(options.url) as channel:
        infer: Any = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.inference.ModelInferResponse.FromString,
        )
        began_s = time.monotonic()
        sent = 0
        while (elapsed_s := time.monotonic() - began_s) < options.seconds:
            rows = rng.integers(n_rows, size=options.rows)
            values = {name: each[rows].copy() for name, each in inputs.items()}
            is_drifting = change is not None and elapsed_s >= options.after
            if change is not None and is_drifting:
                change(values, rng)
            request = pb.inference.ModelInferRequest(model_name=options.model)
            for name, each in values.items():
                datatype = DATATYPES[each.dtype.kind]
                request.inputs.add(name=name, datatype=datatype, shape=each.shape)
                request.raw_input_contents.append(encode(_utf8(each) if datatype == "BYTES" else each, datatype))
            infer(request, timeout=10)
            sent += 1
            if sys.stderr.isatty():
                word = "drifting" if is_drifting else "as in training"
                print(f"\r{sent} requests in {elapsed_s:.0f} s, {word} ", end="", file=sys.stderr)
            time.sleep(max(0.0, sent / options.rate - (time.monotonic() - began_s)))
    print(f"{sent} requests", file=sys.stderr)
    return 0


def _utf8(texts: Any) -> Any:
    return np.array([text.encode() for text in texts.ravel().tolist()], object)


def parse_drift(text: str, folder: Path, inputs: dict[str, Any]) -> Change:
    """COLUMN=+1.5 or COLUMN=nan:0.2, with the column's name as in the profile."""
    name, equals, amount = text.rpartition("=")
    columns = {column.name: column for column in load_profile(folder).columns}
    if not equals or name not in columns:
        sys.exit(f"--drift {text!r}: expected COLUMN=+1.5 or COLUMN=nan:0.2; columns: {', '.join(columns)}")
    column = columns[name]
    tensor, index = column.tensor, column.offset
    if inputs[tensor].dtype.kind != "f":
        sys.exit(f"--drift {text!r}: {name} holds words; expected a column of numbers")
    try:
        share = float(amount.removeprefix("nan:"))
    except ValueError:
        sys.exit(f"--drift {text!r}: got {amount!r}, expected a number of deviations or nan:SHARE")
    spread = float(inputs[tensor].reshape(len(inputs[tensor]), -1)[:, index].std())

    def change(values: dict[str, Any], rng: np.random.Generator) -> None:
        flat = values[tensor].reshape(len(values[tensor]), -1)
        if amount.startswith("nan:"):
            flat[rng.random(len(flat)) < share, index] = np.nan
        else:
            flat[:, index] += share * spread

    return change


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m demo.traffic", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="breast_cancer, digits or wine")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR")
    parser.add_argument("--version", default="1", metavar="N", help="whose data and columns")
    parser.add_argument("--url", default="127.0.0.1:8001", metavar="HOST:PORT", help="gRPC address")
    parser.add_argument("--rate", type=float, default=20.0, metavar="N", help="requests a second")
    parser.add_argument("--rows", type=int, default=1, metavar="N", help="in each request")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="N")
    parser.add_argument("--drift", default="", metavar="COLUMN=AMOUNT")
    parser.add_argument("--after", type=float, default=0.0, metavar="SECONDS", help="until it drifts")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except grpc.RpcError as error:
        sys.exit(f"error: {error.code().name}: {error.details()}")

"""`python -m demo DIR`: put the demo models into DIR, each version once. Run again, it does only what is missing."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from demo import catalogue, folder

PACKAGES = {"sklearn": "scikit-learn", "skl2onnx": "skl2onnx", "onnxruntime": "onnxruntime", "pyarrow": "pyarrow"}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Train the demo models into a model repository."
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the model repository; made when it is not there")
    parser.add_argument("--unless-others", action="store_true", help="leave DIR alone when it holds other models")
    arguments = parser.parse_args()
    root: Path = arguments.directory
    if root.exists() and not root.is_dir():
        parser.error(f"{root} is a file; DIR must be a directory, or nothing yet")
    if arguments.unless_others and holds_others(root):
        return 0
    wanted = [(model, version) for model in catalogue.MODELS for version in model.versions]
    folders = [root / model.name / str(version.number) for model, version in wanted]
    if all(folder.is_complete(path) and (path / folder.PROFILE).is_file() for path in folders):
        return 0
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"The demo models need {', '.join(missing)}: pip install 'gateway[demo,cpu]'", file=sys.stderr)
        return 1
    root.mkdir(parents=True, exist_ok=True)
    with folder.locked(root):
        for model, version in wanted:
            train(root, model, version)
    return 0


def holds_others(root: Path) -> bool:
    ours = {model.name for model in catalogue.MODELS}
    return root.is_dir() and any(entry.is_dir() and entry.name not in ours for entry in root.glob("[!.]*"))


def train(root: Path, model: catalogue.DemoModel, version: catalogue.DemoVersion) -> None:
    target = root / model.name / str(version.number)
    about = root / model.name / "model.yaml"
    if not about.exists():  # a person may have edited it
        folder.write_file(about, model_yaml(model).encode())
    if folder.is_complete(target) and (target / folder.PROFILE).is_file():
        return
    print(f"{model.name}/{version.number}: {version.about}", end=" ", flush=True)
    start = time.monotonic()
    done = "profile"
    if not folder.is_complete(target):
        from demo.export import export_version  # brings in scikit-learn

        quality = folder.write_version(target, lambda partial: export_version(model, version, partial))
        done = f"{quality.right} of {quality.rows} unseen rows right"
    from demo.baseline import profile

    folder.write_file(target / folder.PROFILE, profile(root, model.name, version.number))
    print(f"... {done}, {time.monotonic() - start:.1f} s", flush=True)


def model_yaml(model: catalogue.DemoModel) -> str:
    lines = [f"# Owner: the gateway's demo. {model.about}", "backend: onnx"]
    if model.names:
        lines += ["monitoring:", "  tensors:"]
        for tensor, names in model.names().items():
            listed = "\n".join(f"        - {name}" for name in names)
            lines.append(f"    {tensor}:\n      names:  # of the values of a row, in order\n{listed}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

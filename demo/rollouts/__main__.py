"""`python -m demo.rollouts`: a gateway under load, and three releases at once. Nobody but the gateway decides."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import yaml
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from demo.rollouts import models, report
from demo.rollouts.follow import Followed, Stream
from demo.rollouts.host import Failed, Host
from demo.rollouts.screen import Screen

PLAN = Path(__file__).with_name("plan.yaml")
RATE = 800.0
"""Requests a second for each model."""
BEFORE_S = 5.0
"""Stable alone: what it is compared with later, its latency, is taken from here."""
PATIENCE_S = 130.0
ASK_EVERY_S = 0.25
WIDTH = 120
"""Where there is no terminal that says its own."""
CALM_S = 2.0
"""After the last decision, so that the live view is seen to be still."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.rollouts", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), metavar="DIR", help="for all it writes")
    parser.add_argument("--rate", type=float, default=RATE, metavar="N", help="requests a second, each model")
    parser.add_argument("--stay", action="store_true", help="leave gateway and traffic running, until Ctrl-C")
    given = parser.parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    try:
        return play(console, given.folder, given.rate, stay=given.stay)
    except Failed as error:
        console.print(f"[bold red]the demo cannot go on:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


def play(console: Console, folder: Path, rate: float, *, stay: bool) -> int:
    began_s = time.monotonic()
    console.print(Rule("[bold]three releases, one gateway[/]", style="cyan"))
    console.print(
        "Three models are in service. Today each gets a new version, and each of them passed its own tests.\n"
        "One is better. One fails on 3 % of real requests. One answers in time, without errors, and wrongly.\n"
        "The gateway gives each a little traffic, compares, and decides by itself. It does not know the truth.\n"
    )
    if not all(models.is_trained(folder, model) for model in models.MODELS):
        console.print("[dim]training the models, once[/]")
        models.train(folder, console.print)
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    repository = run / "models"
    for model in models.MODELS:
        shutil.copytree(folder / "models" / model.name, repository / model.name, ignore=shutil.ignore_patterns("2"))
    with ExitStack() as stack:
        host = stack.enter_context(Host(repository, run))
        host.wait_routed(*(model.name for model in models.MODELS))
        followed = []
        for model in models.MODELS:
            stream = Stream(model.name, folder / "rows" / f"{model.name}.npz", host.port, rate)
            stack.callback(stream.close)
            followed.append(Followed(model, stream))
        console.print(
            f"[dim]gateway: 2 workers, control plane {host.url}/docs; traffic: 3 x {rate:g} requests a second[/]"
        )
        _warm(followed)
        _release(console, host, followed, folder, repository)
        is_done = _watch(console, host, followed)
        _tell(console, host, followed, folder, time.monotonic() - began_s)
        if stay and is_done:
            _stay(console, host)
    return 0 if is_done and [each.stage for each in followed] == ["promoted", "rolled_back", "rolled_back"] else 1


def _warm(followed: list[Followed]) -> None:
    """Until each stable version has answered for a while."""
    _until(followed, lambda: all(each.stream.is_ready for each in followed))
    for each in followed:
        each.stream.begin()
    until_s = time.monotonic() + BEFORE_S
    _until(followed, lambda: time.monotonic() > until_s and all(each.stream.n for each in followed))


def _until(followed: list[Followed], probe: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30.0
    while not probe():
        dead = [each.model.name for each in followed if not each.stream.is_alive]
        if dead or time.monotonic() > until_s:
            raise Failed(f"no answers to the traffic of {', '.join(dead) or 'some model'}")
        time.sleep(0.05)


def _release(console: Console, host: Host, followed: list[Followed], folder: Path, repository: Path) -> None:
    """What three teams do: put a version into the repository, and start a rollout with a plan of six lines."""
    plan = yaml.safe_load(PLAN.read_text())
    console.print("\nThe plan, the same for all three; what it does not say has safe defaults:")
    for line in PLAN.read_text().splitlines():
        if not line.startswith("#"):
            console.print(Text(f"    {line}", style="cyan"))
    console.print()
    for each in followed:
        name = each.model.name
        shutil.copytree(folder / "models" / name / "2", repository / name / ".2.partial")
        (repository / name / ".2.partial").rename(repository / name / "2")
    for each in followed:
        body = {"plan": {"model": each.model.name, "candidate": 2, **plan}, "reason": each.model.candidate.summary}
        each.now = host.ask("POST", "v1", "rollouts", body=body)
        each.id = each.now["id"]


def _watch(console: Console, host: Host, followed: list[Followed]) -> bool:
    screen = Screen(console, followed)
    until_s = time.monotonic() + PATIENCE_S
    calm_s: float | None = None
    with screen.open():
        while time.monotonic() < until_s:
            for each in followed:
                for decision in each.ask(host):
                    screen.decided(each, decision)
            screen.update()
            if all(each.is_over for each in followed):
                calm_s = calm_s or time.monotonic() + CALM_S
                if time.monotonic() >= calm_s:
                    return True
            time.sleep(ASK_EVERY_S)
    return False


def _tell(console: Console, host: Host, followed: list[Followed], folder: Path, took_s: float) -> None:
    console.print(Rule("[bold]what happened[/]", style="cyan"))
    for each in followed:
        report.outcome(console, each)
    console.print(Rule("[bold]why: the audit log[/]", style="cyan"))
    report.audit(console, host, followed)
    bad = next((each for each in followed if each.stage == "rolled_back"), None)
    if bad:
        console.print(Rule(f"[bold]one decision with all its numbers: {bad.model.name}[/]", style="cyan"))
        report.explained(console, host, bad)
    console.print(Rule(style="cyan"))
    console.print(report.replays(host, followed))
    for path in report.pictures(host, followed, folder):
        if path.suffix == ".png":
            console.print(f"picture: {path} (and .svg)")
    console.print(f"[dim]{took_s:.0f} s; logs and state in {folder / 'run'}[/]")


def _stay(console: Console, host: Host) -> None:
    console.print(f"\nstill running: GATEWAY_SERVER={host.url} .venv/bin/gateway rollout list; Ctrl-C ends it")
    while host.process.poll() is None:
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())

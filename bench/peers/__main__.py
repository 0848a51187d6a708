"""`python -m bench.peers`: other servers with the same models, side by side with the gateway.

Say --quick (does every peer work? two minutes), --kept (the run of the README, a quarter of an hour on a quiet machine)
or --full (an hour and a half). A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before grpc is imported: it logs each refused connection

from bench.errors import BenchError, NotMeasured
from bench.peers import catalogue, drive, record, table
from bench.peers.peer import Peer
from bench.peers.works import ALL
from gateway.loadtest.measure import LoadFailed

MAX_STARTS = 4
"""Of a peer in one run: after a load that failed it is started anew."""


def main() -> int:
    options = parse_arguments()
    if options.list:
        for peer in catalogue.PEERS.values():
            print(f"{peer.name:12} {peer.title}; {peer.version()}\n{'':12} {peer.settings}\n{'':12} {peer.link}")
        return 0
    if options.report:
        return report(options.report)
    if options.install:
        return install(options.only)
    mode = next((catalogue.MODES[name] for name in catalogue.MODES if getattr(options, name)), None)
    if mode is None:
        print("bench.peers: say --quick, --kept or --full (or --list, --install, --report)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every finally runs and no server stays
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    measured, goes_on = record.begin(mode.name, fresh=options.fresh)
    say = Say()
    if goes_on:
        say(f"goes on with a run that was stopped after {len(measured.rows)} rows; --fresh begins anew")
    turns = catalogue.turns(mode, options.only)
    plans = [(peer, again, catalogue.loads(mode, peer, options.work, again)) for peer, again in turns]
    all_s = sum(catalogue.seconds(mode, load) for _, _, loads in plans for load in loads)
    all_s += sum(catalogue.trial_seconds(mode, peer) for peer, again in turns if not again)
    say(f"{len(turns)} turns, about {(all_s + 8 * len(turns)) / 60:.0f} minutes")
    for peer, again, loads in plans:
        run(mode, peer, again, loads, measured, say)
    is_whole = not options.only and not options.work
    kept = record.finish(measured, save=is_whole and mode is not catalogue.QUICK and not options.no_save)
    table.show(measured)
    print(f"kept as {os.path.relpath(kept)}; `python -m bench.peers --report {os.path.relpath(kept)}` draws it")
    if measured.problems:
        print(f"{len(measured.problems)} could not be measured; the same command tries only those again")
    wrong = sum(row["wrong"] for row in measured.rows)
    return 1 if measured.problems or wrong else 0


def run(
    mode: catalogue.Mode, peer: Peer, again: int, loads: list[drive.Load], measured: record.Record, say: Say
) -> None:
    """All loads of one peer that are not measured yet; what fails is written down, and the others go on."""
    loads = [load for load in loads if not measured.has(peer.name, again, load)]
    if not loads:
        return
    measured.problems = {key: why for key, why in measured.problems.items() if key.partition(":")[0] != peer.name}
    say(f"starting {peer.title}")
    try:
        variant = chosen(peer, mode, measured, say)
        for _ in range(MAX_STARTS):
            loads = started(mode, peer, again, variant, loads, measured, say)
            if not loads:
                return
        measured.problems[peer.name] = f"given up after {MAX_STARTS} starts, with {len(loads)} loads not tried"
    except NotMeasured as reason:
        measured.problems[peer.name] = f"not measured: {reason}"
    except (BenchError, LoadFailed) as error:
        measured.problems[peer.name] = str(error)
    say(f"  {measured.problems[peer.name]}")


def started(
    mode: catalogue.Mode,
    peer: Peer,
    again: int,
    variant: dict[str, int],
    loads: list[drive.Load],
    measured: record.Record,
    say: Say,
) -> list[drive.Load]:
    """One life of the peer, until a load fails: it may have broken it. Returns the loads that are left."""
    works = tuple(work for work in ALL if work.name in peer.works)
    with (
        tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as scratch,
        peer.start(Path(scratch), works, **variant) as running,
    ):
        for number, load in enumerate(loads):
            try:
                if load.at_once and peer.runs_models:
                    drive.wait_until_right(peer, running, load)
                row = one(mode, peer, again, running, load, measured)
            except (LoadFailed, BenchError) as error:
                measured.problems[f"{peer.name}: {load.words}"] = str(error)
                say(f"  {load.words}: {error}")
                return loads[number + 1 :]
            measured.rows.append({**row, "time": again})
            record.checkpoint(measured)
            say(f"  {load.words}: {table.line(row)}")
    return []


def chosen(peer: Peer, mode: catalogue.Mode, measured: record.Record, say: Say) -> dict[str, int]:
    """Of the peer's variants the quickest here, on the small MLP; written down with its settings."""
    known = measured.peers.get(peer.name)
    if known:
        return dict(known["variant"])
    rates: dict[int, float] = {}
    for number, variant in enumerate(peer.variants if len(peer.variants) > 1 else ()):
        try:
            rates[number] = trial(peer, mode, variant)
            say(f"  trial of {words(variant)}: {rates[number]:,.0f}/s")
        except (LoadFailed, BenchError) as error:
            say(f"  trial of {words(variant)}: {error}")
    best = peer.variants[max(rates, key=lambda number: rates[number], default=0)]
    measured.peers[peer.name] = {
        "title": peer.title,
        "version": peer.version(),
        "settings": peer.settings + (f"; {words(best)}, the quickest of {len(peer.variants)} tried" if rates else ""),
        "link": peer.link,
        "variant": best,
        "tried": [{**peer.variants[number], "requests_per_s": rate} for number, rate in rates.items()],
    }
    return best


def trial(peer: Peer, mode: catalogue.Mode, variant: dict[str, int]) -> float:
    """Requests a second, in short."""
    load = drive.Load(peer.protocols[0], "small", at_once=catalogue.TRIAL_AT_ONCE)
    with (
        tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as scratch,
        peer.start(Path(scratch), ALL, **variant) as running,
    ):
        drive.wait_until_right(peer, running, load)
        return float(drive.row(peer, running, load, None, mode.seconds / 2, mode.warmup_s)["requests_per_s"])


def words(variant: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in variant.items())


def one(
    mode: catalogue.Mode, peer: Peer, again: int, running: drive.Running, load: drive.Load, measured: record.Record
) -> dict[str, object]:
    if load.of_peak is None:
        return drive.row(peer, running, load, None, mode.seconds, mode.warmup_s)
    peak = measured.peak_per_s(peer.name, again, load)
    if not peak:
        raise BenchError("no closed loop was measured, so there is no peak to take a share of")
    return drive.row(peer, running, load, peak * load.of_peak, mode.open_seconds, mode.warmup_s)


def install(names: list[str]) -> int:
    """Each peer's environment, outside the tree."""
    failed = 0
    for peer in catalogue.PEERS.values():
        if names and peer.name not in names:
            continue
        try:
            peer.install()
        except Exception as error:  # of pip, of the wheel's unpacking: the others can still be measured
            print(f"{peer.name}: not installed: {error}", file=sys.stderr)
            failed = 1
    return failed


def report(path: Path) -> int:
    from bench.peers import picture, readme

    measured = record.read(path)
    table.show(measured)
    folder = path.resolve().parent
    written = [*picture.draw(measured, folder), readme.write_table(measured, path)]
    if folder == record.FOLDER and readme.write_section(measured, path):
        written.append(readme.README)
    for file in written:
        print(f"wrote {os.path.relpath(file)}")
    return 0


class Say:
    """Progress, to stderr."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began_s:5.0f} s] {text}", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short loads: does every peer answer, and rightly?")
    parser.add_argument("--kept", action="store_true", help="the selection that the README shows")
    parser.add_argument("--full", action="store_true", help="every work at every concurrency, open loops for all")
    parser.add_argument(
        "--only", action="append", default=[], choices=list(catalogue.PEERS), metavar="PEER",
        help=f"only this peer; may be given again. {', '.join(catalogue.PEERS)}",
    )  # fmt: skip
    parser.add_argument(
        "--work", action="append", default=[], choices=[work.name for work in ALL], metavar="WORK",
        help="only this work; may be given again. " + ", ".join(work.name for work in ALL),
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="forget a run that was stopped")
    parser.add_argument("--no-save", action="store_true", help="keep no file in bench/peers/results")
    parser.add_argument("--install", action="store_true", help="make the peers' environments, and end")
    parser.add_argument("--list", action="store_true", help="show the peers with their versions and settings, and end")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="draw a result: plots and table beside it, and for a kept one the README's section",
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

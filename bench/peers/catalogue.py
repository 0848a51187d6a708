"""Who is measured, in which order, and with which loads in each kind of run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peers import bentoml, grpcaio, litserve, mlserver, nghttpd, nginx, ours, rayserve, triton
from bench.peers.drive import Load
from bench.peers.peer import Peer
from bench.peers.works import ALL

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        nghttpd.PEER, ours.PEER, nginx.PEER, triton.PEER, triton.LIVE, grpcaio.PEER, mlserver.PEER, bentoml.PEER,
        litserve.PEER, rayserve.PEER,
    )
}  # fmt: skip


TRIAL_AT_ONCE = 128
START_S = 5.0
"""Of most peers, about."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How much is measured."""

    name: str
    seconds: float
    warmup_s: float
    open_seconds: float
    of_peak: tuple[float, ...]
    open_works: tuple[str, ...]
    again: tuple[str, ...]
    """Measured a second time at the end: how far the machine itself wandered meanwhile."""


QUICK = Mode("quick", 0.7, 0.3, 0.7, (0.5,), ("small",), ())
KEPT = Mode("kept", 2.5, 1.0, 4.0, (0.5, 0.8, 0.95), ("small",), ("limit", "gateway"))
FULL = Mode("full", 5.0, 2.0, 10.0, (0.5, 0.8, 0.95), ("small", "large", "image", "text"), ("limit", "gateway"))
MODES = {mode.name: mode for mode in (QUICK, KEPT, FULL)}


def turns(mode: Mode, names: list[str]) -> list[tuple[Peer, int]]:
    """(peer, which time)."""
    chosen = [peer for name, peer in PEERS.items() if not names or name in names]
    return [(peer, 0) for peer in chosen] + [(PEERS[name], 1) for name in mode.again if PEERS[name] in chosen]


def loads(mode: Mode, peer: Peer, works: list[str], time: int = 0) -> list[Load]:
    """Closed loops first: their best rate is the peak that the open ones are shares of. The second time, only those."""
    found: list[Load] = []
    for protocol in peer.protocols:
        for work in ALL:
            if work.name not in peer.works or (works and work.name not in works):
                continue
            found += [Load(protocol, work.name, at_once=n) for n in getattr(work, mode.name)]
            if work.name in mode.open_works and time == 0:
                found += [Load(protocol, work.name, of_peak=share) for share in mode.of_peak]
    return found


def trial_seconds(mode: Mode, peer: Peer) -> float:
    """For the choice among its variants, each started for it."""
    return len(peer.variants) * (mode.warmup_s + mode.seconds / 2 + START_S) if len(peer.variants) > 1 else 0.0


def seconds(mode: Mode, load: Load) -> float:
    """About how long it takes."""
    return mode.warmup_s + (mode.seconds if load.at_once else mode.open_seconds) + 0.3

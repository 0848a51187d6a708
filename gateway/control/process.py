"""The control process: the control port, the store behind it, and the duties of whoever leads.

Killing it harms no request: workers go on by the routes they have. It ends on SIGTERM, and when its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from typing import TYPE_CHECKING, NoReturn

from gateway.config.deployment import STORE_VARIABLE, ControlOptions
from gateway.control import automatic, drift, fleet, keep, rollouts
from gateway.control.app import create_app
from gateway.control.drift import DriftWatch
from gateway.control.fleet import Expected
from gateway.control.leader import Leader
from gateway.control.link import Link
from gateway.control.plane import Plane
from gateway.control.registration import ACTOR, Registrar
from gateway.control.rollouts import Rollouts
from gateway.control.server import serve
from gateway.control.storekeeper import StoreKeeper
from gateway.control.webhooks import Courier
from gateway.errors import GatewayError
from gateway.feedback.report import MAX_AGE_S
from gateway.feedback.tally import hour_of
from gateway.monitoring.baseline import Settings
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import Store

BACKLOG = 64
ROUTES_EVERY_S = 0.5
REGISTER_EVERY_S = 1.0
KEEP_EVERY_S = 1.0
COURIER_EVERY_S = 1.0
PRUNE_EVERY_S = 600.0
START_GRACE_S = 10.0
"""For the first worker of each place to report; then a model's first route does not wait for it any longer."""
FORGET_SUMS_AFTER_S = 400 * 24 * 3600.0
"""Of feedback; last year's season can be compared."""
FORGET_WORKERS_AFTER_S = 24 * 3600.0
FORGET_ROLLOUTS_AFTER_S = 90 * 24 * 3600.0
"""The points of their timelines; what moved them is kept for good."""
FORGET_REPORTS_AFTER_S = {
    "plan": 24 * 3600.0,
    "evidence": 30 * 24 * 3600.0,
    "cost": 24 * 3600.0,
    "pair": 30 * 24 * 3600.0,
    "shadow": 30 * 24 * 3600.0,
    "disagreement": 7 * 24 * 3600.0,
    "capture": 1800.0,  # callers' rows: gone soon, also when nobody fetched them
    "capture_order": 1800.0,
    "link": 24 * 3600.0,
    "acceptance": 24 * 3600.0,  # what it found is kept with the decision
    "acceptance_order": 24 * 3600.0,
}


def run(options: ControlOptions, sock: socket.socket) -> NoReturn:
    """Serve until told to stop, and exit: a thread that waits for a store that hangs must not hold that up."""
    logs.setup(options.log_format, process="control")
    if options.store is None:
        options = options.model_copy(update={"store": os.environ.get(STORE_VARIABLE)})
    code = 1
    try:
        code = asyncio.run(_run(options, sock))
    except Exception as error:
        logs.get().exception("control plane failed", error=str(error))
    finally:
        os._exit(code)


async def _run(options: ControlOptions, sock: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.lifeline_fd is not None:
        loop.add_reader(options.lifeline_fd, _orphaned, loop, options.lifeline_fd, stop)
    url = options.store_url()
    assert url is not None, "the supervisor gives a folder where nobody else does"
    host = socket.gethostname()
    is_supervised = options.link_fd is not None
    # A process that takes this one's place goes by the same name, and need not wait for the lease.
    holder = f"{host}/{os.getppid()}" if is_supervised else f"{host}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    keeper = StoreKeeper(url, options.state)
    leader = Leader(keeper, holder)
    link = Link(socket.socket(fileno=options.link_fd) if options.link_fd is not None else None)
    plane = Plane(
        models=options.models,
        keeper=keeper,
        leader=leader,
        registrar=Registrar(options.models),
        expected=Expected(host, options.workers) if is_supervised else Expected(),
        totals=link.totals,
        is_ephemeral=options.is_ephemeral,
        webhooks=tuple(webhook.name for webhook in options.webhooks),
    )
    add_duties(plane)
    watch = DriftWatch(Settings(**options.drift.model_dump()), plane.webhooks)
    leader.add("drift", drift.EVERY_S, watch.run)
    carried = Rollouts(lambda: leader.term, endpoints=plane.webhooks)
    leader.add("rollouts", rollouts.EVERY_S, carried.run)
    leader.add("webhooks", COURIER_EVERY_S, Courier(options.webhooks).run)
    sock.listen(BACKLOG)
    await link.open()
    keeper.start()
    leader.start()
    log = logs.get()
    log.info("control plane ready", port=sock.getsockname()[1])
    try:
        await serve(sock, create_app(plane), stop)
    except Exception as error:
        log.exception("control plane failed", error=str(error))
        return 1
    finally:
        await link.close()
        await asyncio.to_thread(plane.desk.close)
        await asyncio.to_thread(leader.stop)
        await asyncio.to_thread(keeper.close)
    return 0


def _orphaned(loop: asyncio.AbstractEventLoop, fd: int, stop: asyncio.Event) -> None:
    loop.remove_reader(fd)
    stop.set()


def add_duties(plane: Plane) -> None:
    """What one control process among all does, beside answering."""
    began_s = time.monotonic()

    def route(store: Store) -> None:
        live = plane.live()
        if not live or (fleet.absent(live, plane.expected) and time.monotonic() - began_s < START_GRACE_S):
            return
        wishes = automatic.decide(live, store.routes())
        held = {rollout.model for rollout in store.rollouts(live=True)} if wishes else set()
        for wish in wishes:
            if wish.model in held:
                continue
            try:
                with plane.commit:
                    store.put_route(
                        wish.model, wish.document, wish.expected_generation, ACTOR, wish.reason, automatic=True
                    )
            except GatewayError as error:  # somebody was quicker
                logs.get().info("automatic route not written", model=wish.model, error=str(error))

    def register(store: Store) -> None:
        states = fleet.reported(plane.live())
        plane.registrar.run(store, {key for key, counts in states.items() if fleet.READY in counts})

    def forget(store: Store) -> None:
        wanted = store.wanted()
        wanted -= {(rollout.model, version) for rollout in store.rollouts(live=True) for version in rollout.needs}
        for model in sorted({model for model, _ in wanted}):
            versions = {version for m, version in wanted if m == model}
            with plane.commit:
                for version in keep.expired(store.route_history(model), versions, time.time()):
                    store.unwant(model, version, ACTOR, "no route names it any more, and `keep` is over")

    def prune(store: Store) -> None:
        now_s = time.time()
        store.forget_workers(now_s - FORGET_WORKERS_AFTER_S)
        for kind, after_s in FORGET_REPORTS_AFTER_S.items():
            store.prune_reports(kind, now_s - after_s)
        store.prune_rollouts(now_s - FORGET_ROLLOUTS_AFTER_S)
        # A day more than reports are taken for: what is forgotten could be counted twice.
        store.prune_feedback(now_s - MAX_AGE_S - 24 * 3600.0, hour_of(now_s - FORGET_SUMS_AFTER_S))

    plane.leader.add("routes", ROUTES_EVERY_S, route)
    plane.leader.add("registry", REGISTER_EVERY_S, register)
    plane.leader.add("keep", KEEP_EVERY_S, forget)
    plane.leader.add("prune", PRUNE_EVERY_S, prune)

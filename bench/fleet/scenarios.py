"""What may befall a fleet of two while requests flow, one function each: it breaks something, mends it, and gives the
counts. `n` is how many right answers each of its phases waits for.

What holds in all of them: nobody gets a wrong answer, and while one server is well nobody is refused.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from bench.fleet.load import Counts, Load
from bench.fleet.models import OTHER_TYPE, ROWS
from bench.fleet.world import World, manage
from demo.triton.repository import store

Scenario = Callable[[World, int], Counts]


def killed(world: World, n: int) -> Counts:
    """kill -9 of one server, and its return."""
    with Load(world.gateway_url, "double") as load:
        load.wait_more(n)
        with world.until_out(world.b.url):
            world.b.kill()
            load.wait_more(2 * n)
        world.b.start()
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def stopped(world: World, n: int) -> Counts:
    """SIGSTOP: its connections stay open, and nobody answers."""
    with Load(world.gateway_url, "double") as load:
        load.wait_more(n)
        try:
            with world.until_out(world.b.url):
                world.b.pause()
                load.wait_more(2 * n)
        finally:
            world.b.resume()
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def slow(world: World, n: int) -> Counts:
    """A path that takes 300 ms longer than the other: ejected or not, as slow as the other may be."""
    with Load(world.gateway_url, "through") as load:
        load.wait_more(n)
        world.proxy.delay_s = 0.3
        load.wait_more(3 * n)
        world.proxy.delay_s = 0.0
        load.wait_more(n)
    return load.counts


def cut(world: World, n: int) -> Counts:
    """Connections reset in the middle of an answer, again and again."""
    with Load(world.gateway_url, "through") as load:
        load.wait_more(n)
        with world.until_out(world.proxy.url):
            world.proxy.cut_after = (500, 20_000)
            world.proxy.cut()
            load.wait_more(3 * n)
        world.proxy.cut_after = None
        world.proxy.cut()
        load.wait_more(n)
    return load.counts


def unloaded(world: World, n: int) -> Counts:
    """The model is unloaded on one server behind the gateway's back, and loaded again."""
    with Load(world.gateway_url, "double") as load:
        load.wait_more(n)
        with world.until_out(world.b.url):
            manage(world.b, "double", "unload")
            load.wait_more(2 * n)
        manage(world.b, "double", "load")
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def other_type(world: World, n: int) -> Counts:
    """One server answers FP64 where FP32 was promised, and is mended."""
    with Load(world.gateway_url, "double") as load:
        load.wait_more(n)
        with world.until_out(world.b.url):
            store(world.b.repository, OTHER_TYPE)
            manage(world.b, "double", "load")
            load.wait_more(2 * n)
        store(world.b.repository, ROWS)
        manage(world.b, "double", "load")
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def moved(world: World, n: int) -> Counts:
    """From the gateway's own process to the fleet, step by step, with kill -9 of one server on the way."""
    world.route("moved", {"1": 100})
    with Load(world.gateway_url, "moved") as load:
        load.wait_more(n)
        for share in (10, 50):
            world.route("moved", {"1": 100 - share, "2": share})
            load.wait_more(n)
        world.b.kill()
        load.wait_more(n)
        world.route("moved", {"2": 100})
        load.wait_more(n)
        world.b.start()
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def worker(world: World, n: int) -> Counts:
    """kill -9 of one of the gateway's workers while one of the servers is dead: who was connected to it is refused."""
    with Load(world.gateway_url, "double") as load:
        load.wait_more(n)
        with world.until_out(world.b.url):
            world.b.kill()
            load.wait_more(n)
        before = world.workers
        os.kill(before[0], signal.SIGKILL)
        load.wait_more(n)
        world.eventually(lambda: len({*world.workers} - {*before}) == 1, "another worker is started")
        world.b.start()
        world.until_asked(world.b)
        load.wait_more(n)
    return load.counts


def connects(world: World, n: int) -> Counts:
    """Every request over a connection of its own."""
    with Load(world.gateway_url, "double", reconnect=True) as load:
        load.wait_more(n)
    return load.counts


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario for scenario in (killed, stopped, slow, cut, unloaded, other_type, moved, connects)
}
OF_WORKERS: dict[str, Scenario] = {**SCENARIOS, "worker": worker}
"""With several workers before them."""

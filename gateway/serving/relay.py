"""The supervisor's part in what concerns all workers: it hands on what one of them asks, and collects the answers.

A change of a model goes to the worker that asked first. When that refuses, nobody else hears of it: a model that is
broken, or kills the process that loads it, stays with one worker. Then all others get it at once. Changes of one
model come one after the other, in the same order everywhere. What was asked last is kept for workers that start later.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from gateway.errors import Code, GatewayError
from gateway.observability import logs
from gateway.serving.commands import Refused, as_line
from gateway.serving.wording import quoted

CONTROL_FILE = "control.json"

COLLECT_S = 2.0
"""For counters: one worker that hangs must not keep the others' numbers back."""

_CHANGES = ("load", "unload")
_DIED = "died meanwhile; the one that replaces it does as asked"
_NOT_FIELDS = ("event", "id", "do")


class Peer(Protocol):
    """One worker process: gateway.serving.workerprocess.WorkerProcess."""

    @property
    def index(self) -> int: ...

    @property
    def is_ready(self) -> bool: ...

    def send(self, line: dict[str, Any]) -> None: ...


class Relay:
    """`peers()` are the worker processes that live now, also those that still load. `scratch` is the folder of the
    overrides.
    """

    def __init__(self, peers: Callable[[], Iterable[Peer]], scratch: Path | None = None) -> None:
        self._peers, self._scratch = peers, scratch
        self._numbers = itertools.count(1)
        self._sent: dict[int, tuple[Peer, asyncio.Future[Any]]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._control: dict[str, Path | None] = {}

    # --- what processes say

    def on_ask(self, peer: Peer, event: dict[str, Any]) -> None:
        """{"event": "ask", "id", "do", ...fields}"""
        fields = {name: value for name, value in event.items() if name not in _NOT_FIELDS}
        task = asyncio.get_running_loop().create_task(self._answer(peer, event["id"], event["do"], fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_done(self, event: dict[str, Any]) -> None:
        """{"event": "done", "command", "result" or "error"}"""
        _, outcome = self._sent.get(event["command"], (None, None))
        if outcome is None or outcome.done():
            return
        if error := event.get("error"):
            outcome.set_exception(Refused.from_line(error))
        else:
            outcome.set_result(event.get("result"))

    def on_end(self, peer: Peer) -> None:
        """A process has ended, and is no peer any more; it will not answer."""
        for sent_to, outcome in self._sent.values():
            if sent_to is peer and not outcome.done():
                outcome.set_exception(Refused(Code.UNAVAILABLE, _DIED))

    # --- what is done about it

    async def _answer(self, asker: Peer, number: int, do: str, fields: dict[str, Any]) -> None:
        try:
            results = await (self.change(asker, do, fields) if do in _CHANGES else self.collect(do, fields))
        except Exception as error:
            if not isinstance(error, GatewayError):
                logs.get().exception("request of a worker failed", worker=asker.index, do=do)
            asker.send({"answer": number, "error": as_line(error)})
        else:
            asker.send({"answer": number, "results": results})

    async def change(self, asker: Peer, do: str, fields: dict[str, Any]) -> list[Any]:
        """Returns when all workers have done it. The error of the asker; or one that names who did not follow."""
        model = fields["model"]
        lock = self._locks.setdefault(model, asyncio.Lock())
        async with lock:
            await (self._load(asker, model, fields) if do == "load" else self._unload(model, fields))
        return []

    async def _load(self, asker: Peer, model: str, fields: dict[str, Any]) -> None:
        folder = Path(fields["override"]) if fields.get("override") else None
        try:
            await self._command(asker, "load", fields)
        except GatewayError:
            _remove(folder)
            raise
        replaced = self._control.pop(model, None)
        if folder:
            self._control[model] = folder
        self._keep()
        # Who was started before this line is told now; who starts after it reads what was kept.
        others = [peer for peer in self._peers() if peer is not asker]
        failures = await self._tell(others, "load", fields)
        _remove(replaced)
        _raise_for(failures, f"model {quoted(model)} is loaded in {{}} of {len(others) + 1} workers", len(others) + 1)

    async def _unload(self, model: str, fields: dict[str, Any]) -> None:
        known = model in self._control
        replaced = self._control.pop(model, None)
        self._control[model] = None
        self._keep()
        peers = list(self._peers())
        failures = await self._tell(peers, "unload", fields)
        _remove(replaced)
        # One that started after the model's folder was removed has never heard of it.
        strangers = [peer for peer, error in failures.items() if getattr(error, "code", None) is Code.NOT_FOUND]
        if len(strangers) == len(peers) and not known:
            del self._control[model]
            self._keep()
            raise failures[strangers[0]]
        for peer in strangers:
            del failures[peer]
        _raise_for(failures, f"model {quoted(model)} is unloaded in {{}} of {len(peers)} workers", len(peers))

    async def _tell(self, peers: list[Peer], do: str, fields: dict[str, Any]) -> dict[Peer, BaseException]:
        """All at once; the errors of those that did not do it."""
        outcomes = await asyncio.gather(*(self._command(peer, do, fields) for peer in peers), return_exceptions=True)
        return {
            peer: outcome for peer, outcome in zip(peers, outcomes, strict=True) if isinstance(outcome, BaseException)
        }

    def _keep(self) -> None:
        """For workers that start later."""
        if self._scratch:
            fresh = self._scratch / f"{CONTROL_FILE}.new"
            fresh.write_text(json.dumps({model: folder and str(folder) for model, folder in self._control.items()}))
            fresh.replace(self._scratch / CONTROL_FILE)

    async def collect(self, do: str, fields: dict[str, Any]) -> list[Any]:
        """Results of the workers that are ready and answer in time."""
        tasks = [asyncio.ensure_future(self._command(peer, do, fields)) for peer in self._peers() if peer.is_ready]
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=COLLECT_S)
        for task in late:
            task.cancel()
        return [task.result() for task in tasks if task in done and task.exception() is None]

    async def _command(self, peer: Peer, do: str, fields: dict[str, Any]) -> Any:
        if peer not in self._peers():
            raise Refused(Code.UNAVAILABLE, _DIED)
        number = next(self._numbers)
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._sent[number] = peer, outcome
        try:
            peer.send({"command": number, "do": do, **fields})
            return await outcome
        finally:
            del self._sent[number]


def kept_control(scratch: Path | None) -> dict[str, Path | None]:
    """By model, what was asked before this worker started and differs from the repository: the folder of an override,
    or None when it is unloaded.
    """
    if scratch is None or not (scratch / CONTROL_FILE).exists():
        return {}
    kept = json.loads((scratch / CONTROL_FILE).read_text())
    return {model: Path(folder) if folder else None for model, folder in kept.items()}


def _raise_for(failures: dict[Peer, BaseException], text: str, n_peers: int) -> None:
    if failures:
        each = "; ".join(f"worker {peer.index}: {error}" for peer, error in failures.items())
        raise Refused(Code.INTERNAL, f"{text.format(n_peers - len(failures))}; {each}")


def _remove(folder: Path | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)

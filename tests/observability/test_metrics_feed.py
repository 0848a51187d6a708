"""Lines through a real pipe, whose other end reads slowly, stops, or is gone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from gateway.observability import feed
from gateway.observability.feed import LineReceiver, LineSender


async def until(probe: Callable[[], object], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not probe():  # noqa: ASYNC110  (nothing announces what the kernel has taken)
            await asyncio.sleep(0.002)


async def test_lines_arrive_whole_and_in_order_whatever_their_size() -> None:
    read_fd, write_fd = os.pipe()
    got: list[bytes] = []
    receiver, sender = LineReceiver(read_fd, got.append), LineSender(write_fd)
    lines = [b"x" * size for size in (0, 1, 4096, 65535, 65536, 65537, 1_000_000)]
    for line in lines:
        await until(lambda: sender.is_clear)
        assert sender.send(line + b"\n")
    await until(lambda: len(got) == len(lines))
    assert got == lines
    await sender.close(1)
    receiver.close()
    assert sender.n_dropped == 0


async def test_a_receiver_that_does_not_read_costs_lines_and_no_time() -> None:
    read_fd, write_fd = os.pipe()
    sender = LineSender(write_fd)
    sent = [sender.send(b"%05d" % number + b"." * 994 + b"\n") for number in range(1000)]
    assert sent[0]
    assert not sent[-1]
    assert sender.n_dropped == sent.count(False)
    assert not sender.is_clear
    got: list[bytes] = []
    receiver = LineReceiver(read_fd, got.append)
    await until(lambda: sender.is_clear)
    assert sender.send(b"again\n")
    await until(lambda: b"again" in got)
    assert {len(line) for line in got[:-1]} == {999}  # none was cut, and none written into another
    assert len(got) == sent.count(True) + 1
    await sender.close(1)
    receiver.close()


async def test_closing_waits_for_a_receiver_only_so_long() -> None:
    read_fd, write_fd = os.pipe()
    sender = LineSender(write_fd)
    sender.send(b"x" * 1_000_000 + b"\n")
    began_s = time.monotonic()
    await sender.close(0.05)
    assert time.monotonic() - began_s < 30  # it would wait for ever
    os.close(read_fd)


async def test_a_receiver_that_is_gone_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    sender = LineSender(write_fd)
    os.close(read_fd)
    assert not sender.send(b"one\n")
    assert not sender.send(b"two\n")
    await sender.close(1)


async def test_a_receiver_that_goes_while_a_line_is_on_its_way_is_no_error() -> None:
    read_fd, write_fd = os.pipe()
    sender = LineSender(write_fd)
    assert sender.send(b"x" * 1_000_000 + b"\n")
    os.close(read_fd)
    await until(lambda: sender.is_clear)
    assert not sender.send(b"two\n")
    await sender.close(1)


async def test_closing_the_receiver_takes_what_the_dead_left_in_the_pipe() -> None:
    read_fd, write_fd = os.pipe()
    got: list[bytes] = []
    receiver = LineReceiver(read_fd, got.append)
    os.write(write_fd, b"last\nhalf a li")
    os.close(write_fd)
    receiver.close()  # before the loop had a turn
    assert got == [b"last"]


async def test_closing_the_receiver_does_not_wait_for_a_grandchild_that_holds_the_pipe() -> None:
    read_fd, write_fd = os.pipe()
    got: list[bytes] = []
    os.write(write_fd, b"last\n")
    LineReceiver(read_fd, got.append).close()
    assert got == [b"last"]
    os.close(write_fd)


async def test_a_line_without_end_is_dropped_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_LINE_BYTES", 1000)
    read_fd, write_fd = os.pipe()
    got: list[bytes] = []
    receiver = LineReceiver(read_fd, got.append)
    os.write(write_fd, b"x" * 3000)
    await asyncio.sleep(0)
    await until(lambda: not receiver._buffer and receiver._is_overlong)
    os.write(write_fd, b"x" * 500 + b"\nnext\n")
    await until(lambda: got)
    assert got == [b"next"]
    os.close(write_fd)
    receiver.close()

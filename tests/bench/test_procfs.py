"""Listeners, memory and processor time of a process that we know: this one."""

import os
import socket
import sys

import pytest

from bench import procfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_listener_of_a_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert procfs.listeners(listening.getsockname()[1]) == [os.getpid()]


def test_a_bound_port_that_nobody_listens_on_has_no_listener():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert procfs.listeners(bound.getsockname()[1]) == []


def test_memory_and_processor_time_grow_with_use():
    me = [os.getpid()]
    cpu_s, rss_bytes = procfs.cpu_s(me), procfs.rss_bytes(me)
    block = bytearray(os.urandom(1)) * 40_000_000
    assert procfs.rss_bytes(me) - rss_bytes > 30_000_000
    assert procfs.peak_rss_bytes(me) >= procfs.rss_bytes(me) - 1_000_000
    while procfs.cpu_s(me) == cpu_s:
        sum(block[:100_000])

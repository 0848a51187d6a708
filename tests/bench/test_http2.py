"""The benchmark's HTTP/2 client against nghttpd, the reference: its frames are right or nothing comes back."""

import shutil

import pytest

from bench import open_loop
from bench.http2 import Connection
from bench.peers import limit as limits

pytestmark = pytest.mark.skipif(
    not (shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/sbin")), reason="needs nghttp2-server"
)


def test_indexed_requests_are_all_answered_with_the_whole_file(tmp_path):
    ended = []
    with limits.limit(tmp_path, 77) as limit:
        link = Connection(limit.port, b"x" * 160).greet()
        for count in (1, 7, 30):
            link.send(count)
            while link.in_flight:
                link.socket.setblocking(True)
                link.receive(ended.append)
        link.close()
    assert sorted(ended) == list(range(1, 2 * 38, 2))
    assert link.answered_bytes == 38 * 77
    assert link.reset == 0


def test_the_window_and_the_stream_limit_are_never_overrun(tmp_path):
    with limits.limit(tmp_path, 10) as limit:
        link = Connection(limit.port, b"x" * 16_000).greet()
        assert link.room() == 65_535 // 16_000
        link.close()
        link = Connection(limit.port, b"x").greet()
        assert link.room() == link.max_streams == 100
        link.close()


def test_the_open_loop_sends_at_its_rate_and_loses_nothing(tmp_path):
    with limits.limit(tmp_path, 64) as limit:
        got = open_loop.run(limit.port, b"x" * 160, rate_per_s=2_000, seconds=0.25, connections=3)
    assert got.answered == 500
    assert got.answer_bytes == 64
    assert 0 < got.p50_us <= got.p99_us <= got.p999_us <= got.max_us

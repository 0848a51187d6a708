"""A proxy's ceiling: nginx with grpc_pass before nghttpd, no model behind. What forwarding alone can reach."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import procfs
from bench.errors import NotMeasured
from bench.peers import peer as peers
from bench.peers.limit import limit
from bench.peers.nghttpd import ANSWER_BYTES
from bench.peers.peer import Peer, Running
from bench.peers.works import Work
from bench.processes import free_port, wait_until_listening

CONFIGURATION = """\
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} http2;
    http2_max_concurrent_streams 1024;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    location / {{ grpc_pass grpc://model; }}
  }}
}}
"""


def binary() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise NotMeasured("nginx is not installed: apt-get install nginx-light (tools/setup-system peers)")
    return found


@contextmanager
def start(scratch: Path, works: tuple[Work, ...]) -> Iterator[Running]:
    with limit(scratch, ANSWER_BYTES, wide_windows=True, is_grpc=True) as behind:
        port = free_port()
        settings = scratch / "nginx.conf"
        settings.write_text(CONFIGURATION.format(folder=scratch, port=port, upstream=behind.port))
        command = [binary(), "-p", str(scratch), "-c", str(settings)]
        with peers.child(command, scratch / "nginx.log", scratch) as started:
            wait_until_listening(port, started)
            yield Running({("gRPC", work.name): port for work in works}, lambda: procfs.tree(started.process.pid))


def version() -> str:
    try:
        return subprocess.run([binary(), "-v"], capture_output=True, text=True).stderr.strip().rpartition(": ")[2]
    except NotMeasured:
        return "not installed"


PEER = Peer(
    name="nginx",
    title="a proxy's ceiling: nginx, grpc_pass to nghttpd, no model",
    protocols=("gRPC",),
    settings="a worker for each core, 256 connections kept open to what is behind it, no access log, request bodies "
    "in memory; cost and memory are nginx's, without what is behind it",
    link="https://nginx.org/en/docs/http/ngx_http_grpc_module.html",
    version=version,
    start=start,
    runs_models=False,
    works=("small", "image"),
)

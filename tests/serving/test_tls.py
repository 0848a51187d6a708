"""TLS by --tls-cert and --tls-key: clients that trust the certificate are served, others fail and harm nobody."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme

from tests.conftest import Serve
from tests.support import reference
from tests.support.gatewayprocess import GatewayProcess
from tests.support.h2client import RawClient
from tests.support.oip import UNBOUNDED, Client, connect, request
from tests.support.onnxmodels import identity, linear, store
from tests.support.reference import assert_same

pytestmark = pytest.mark.conformance


class Secured:
    """A server with TLS, and the files of who signed its certificate."""

    def __init__(self, server: GatewayProcess, root_certificate: Path) -> None:
        self.server, self.root_certificate = server, root_certificate

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self.root_certificate.read_bytes())
        return grpc.secure_channel(self.server.grpc_url, credentials, options=UNBOUNDED)

    def connected(self, alpn: list[str]) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.root_certificate))
        context.set_alpn_protocols(alpn)
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.fixture(scope="module")
def secured(serve_for_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Secured:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    store(folder / "models", "linear", 1, linear())
    store(folder / "models", "wide", 1, identity("FP32", ("N", "length")))
    flags = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    return Secured(serve_for_module(folder / "models", *flags), folder / "root.pem")


def test_grpcio_is_served(secured: Secured) -> None:
    x = np.random.default_rng(0).random((5, 4), np.float32)
    with secured.channel() as channel:
        got = Client(channel).infer("linear", {"x": x})
    assert_same(got, reference.answer(secured.server.models, "linear", {"x": x}))


def test_tritons_client_is_served(secured: Secured) -> None:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    root = str(secured.root_certificate)
    with triton.InferenceServerClient(secured.server.grpc_url, ssl=True, root_certificates=root) as client:
        assert client.is_server_ready()
        assert client.infer("linear", [tensor]).as_numpy("y").shape == (1, 3)


@pytest.mark.parametrize("megabytes", [1, 40])
def test_large_tensors_go_both_ways(secured: Secured, megabytes: int) -> None:
    x = np.random.default_rng(0).random((1, megabytes * 262_144), np.float32)
    with secured.channel() as channel:
        assert_same(Client(channel).infer("wide", {"x": x}, timeout=50), {"y": x})


def test_many_calls_on_one_connection_are_each_answered(secured: Secured) -> None:
    with secured.channel() as channel:
        client = Client(channel)
        futures = [client.start(request("wide", {"x": np.full((1, 3000), i, np.float32)})) for i in range(100)]
        assert [float(np.frombuffer(f.result().raw_output_contents[0], np.float32)[0]) for f in futures] == [
            *range(100)
        ]


def test_http2_is_agreed_on_by_alpn(secured: Secured) -> None:
    with secured.connected(["http/1.1", "h2"]) as sock:
        assert sock.selected_alpn_protocol() == "h2"
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
        with RawClient(0, sock) as raw:
            message = request("linear", {"x": np.ones((1, 4), np.float32)})
            assert raw.call(message.SerializeToString()).status == 0


def test_a_client_that_speaks_plain_text_fails_cleanly(secured: Secured) -> None:
    with connect(secured.server.grpc_url) as channel, pytest.raises(grpc.RpcError) as caught:
        Client(channel).infer("linear", {"x": np.ones((1, 4), np.float32)}, timeout=5)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    test_grpcio_is_served(secured)


def test_a_client_that_does_not_trust_the_certificate_fails_cleanly(secured: Secured, tmp_path: Path) -> None:
    stranger = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
    with grpc.secure_channel(secured.server.grpc_url, stranger) as channel, pytest.raises(grpc.RpcError) as caught:
        Client(channel).infer("linear", {"x": np.ones((1, 4), np.float32)}, timeout=40)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    test_grpcio_is_served(secured)


def test_a_handshake_that_is_never_finished_holds_up_nobody(secured: Secured) -> None:
    with socket.create_connection(("127.0.0.1", secured.server.port)) as silent:
        silent.sendall(b"\x16\x03\x01\x02")  # the first bytes of a ClientHello
        test_grpcio_is_served(secured)
    assert "Traceback" not in secured.server.log

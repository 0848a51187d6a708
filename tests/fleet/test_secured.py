"""TLS and metadata to real servers: who has the right papers is served, and who has not is told which are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from demo.triton import wheel
from tests.support import oip
from tests.support.conditions import eventually
from tests.support.inprocess import InProcess, serving
from tests.support.triton import TritonServer, models, serve_remotely, together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not()),
]

SERVER_NAME = "triton.test"
HEADER, TOKEN = "triton-grpc-protocol-token", "open sesame"
"""Triton puts `triton-grpc-protocol-` before the name of the header that it is told to ask for."""


class Papers:
    """Files of an authority, a server and a client of its, and of a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(self["ca.pem"]))
        stranger.cert_pem.write_to_path(str(self["stranger.pem"]))
        for signed_by, name in ((authority, SERVER_NAME), (authority, "client"), (stranger, "forged")):
            issued = signed_by.issue_cert(name)
            issued.private_key_pem.write_to_path(str(self[f"{name}.key"]))
            self[f"{name}.pem"].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def of_client(self, name: str = "client", ca: str = "ca.pem", **more: str) -> dict[str, str]:
        """triton.tls"""
        files = {"ca": ca, "cert": f"{name}.pem", "key": f"{name}.key"} if name else {"ca": ca}
        return {**{key: str(self[file]) for key, file in files.items()}, "server_name": SERVER_NAME, **more}

    def of_server(self, *more: str) -> tuple[str, ...]:
        """Flags of tritonserver."""
        files = {"server-cert": f"{SERVER_NAME}.pem", "server-key": f"{SERVER_NAME}.key", "root-cert": "ca.pem"}
        return ("--grpc-use-ssl=1", *(f"--grpc-{flag}={self[file]}" for flag, file in files.items()), *more)


class Guarded:
    """Servers without and with a certificate, with one that wants its clients' too, and two that want a token."""

    def __init__(self, folder: Path) -> None:
        self.papers = Papers(folder)
        self.folder = folder
        flags = {
            "plain": (),
            "tls": self.papers.of_server(),
            "mutual": self.papers.of_server("--grpc-use-ssl-mutual=1"),
            "token": (f"--grpc-restricted-protocol=inference:token={TOKEN}",),
            "closed": (f"--grpc-restricted-protocol=health,metadata,inference:token={TOKEN}",),
        }
        made = [
            TritonServer(models(folder / name / "models", "held"), folder / name, *given)
            for name, given in flags.items()
        ]
        self.servers = dict(zip(flags, together(made), strict=True))

    def close(self) -> None:
        for server in self.servers.values():
            server.close()

    def url(self, name: str) -> str:
        return self.servers[name].url

    def put(self, root: Path, model: str, server: str, **wishes: Any) -> None:
        serve_remotely(root, model, [self.url(server)], remote="held", triton=wishes)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    yield guarded
    guarded.close()


def ask(gateway: InProcess, model: str) -> bool:
    """Whether the answer is right."""
    x = np.float32([[3], [4]])
    with oip.connect(gateway.url) as channel:
        return bool(np.array_equal(oip.Client(channel).infer(model, {"x": x})["y"], 2 * x))


def test_each_paper_that_is_missing_or_wrong_is_a_state_with_its_reason(guarded: Guarded, tmp_path: Path) -> None:
    papers = guarded.papers
    reached = {
        "tls": ("tls", papers.of_client("")),
        "mutual": ("mutual", papers.of_client()),
        "plain": ("plain", None),
    }
    wanted = {
        "wrong-ca": (
            "tls",
            papers.of_client("", "stranger.pem"),
            "its certificate is not signed by whom triton.tls.ca",
        ),
        "wrong-name": ("tls", papers.of_client("", server_name="other.test"), "see triton.tls.server_name"),
        "no-tls": ("tls", None, "it may want TLS"),
        "tls-to-plain": ("plain", papers.of_client(""), "it does not speak TLS, see triton.tls"),
        "no-certificate": ("mutual", papers.of_client(""), "or a certificate of the gateway, see triton.tls"),
        "forged-certificate": ("mutual", papers.of_client("forged"), "or a certificate of the gateway, see triton.tls"),
        "no-file": ("tls", papers.of_client("", "absent.pem"), "absent.pem: cannot be read: No such file"),
    }
    for model, (server, tls, *_) in {**reached, **wanted}.items():
        guarded.put(tmp_path, model, server, tls=tls)
    with serving(tmp_path) as gateway:
        for model in reached:
            assert ask(gateway, model)
        for model, (server, _, why) in wanted.items():
            (entry,) = gateway.catalog.versions(model)
            assert not entry.is_ready
            assert why in entry.reason, model
            assert model == "no-file" or f"{guarded.url(server)} cannot be reached" in entry.reason
            with pytest.raises(grpc.RpcError) as caught:
                ask(gateway, model)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert why in caught.value.details()


def test_a_server_that_comes_back_with_another_certificate_is_not_believed(guarded: Guarded, tmp_path: Path) -> None:
    papers, server = guarded.papers, guarded.servers["tls"]
    guarded.put(tmp_path, "model", "tls", tls=papers.of_client(""))
    own, other = papers[f"{SERVER_NAME}.pem"], papers["forged.pem"]
    with serving(tmp_path) as gateway:
        (entry,) = gateway.catalog.versions("model")
        assert ask(gateway, "model")
        server.kill()
        kept = {file: file.read_bytes() for file in (own, papers[f"{SERVER_NAME}.key"])}
        own.write_bytes(other.read_bytes())
        papers[f"{SERVER_NAME}.key"].write_bytes(papers["forged.key"].read_bytes())
        server.start()
        why = "its certificate is not signed by whom triton.tls.ca names"
        eventually(lambda: why in entry.reason, "it is a stranger now", 30)
        assert not entry.is_ready
        server.kill()
        for file, content in kept.items():
            file.write_bytes(content)
        server.start()
        eventually(lambda: entry.is_ready, "it is itself again", 30)
        assert ask(gateway, "model")


def test_metadata_reach_the_server_and_without_them_the_version_says_so(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    monkeypatch.setenv("TOKEN_OF_TRITON", TOKEN)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    right: dict[str, Any] = {
        "text": TOKEN,
        "env": {"env": "TOKEN_OF_TRITON"},
        "file": {"file": f"{tmp_path / 'token'}"},
    }
    for model, given in right.items():
        guarded.put(models, model, "token", metadata={HEADER: given})
    guarded.put(models, "without", "token")
    guarded.put(models, "wrong", "token", metadata={HEADER: "open barley"})
    guarded.put(models, "unasked", "token", warm_up=False)
    guarded.put(models, "closed", "closed")
    guarded.put(models, "open", "closed", metadata={HEADER: TOKEN})
    with serving(models) as gateway:
        for model in (*right, "open"):
            assert ask(gateway, model)
        for model in ("without", "wrong", "closed"):
            (entry,) = gateway.catalog.versions(model)
            assert not entry.is_ready
            assert "refuses the gateway (UNAVAILABLE); see triton.metadata and triton.tls" in entry.reason
            assert f"expecting header '{HEADER}'" in entry.reason
        with pytest.raises(grpc.RpcError) as caught:  # nothing was asked at load, so that it is found out now
            ask(gateway, "unasked")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "refuses the gateway (UNAVAILABLE); see triton.metadata and triton.tls" in caught.value.details()

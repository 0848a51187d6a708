"""`python -m bench.feedback [--reports N]`: reports a second that a gateway with two workers takes and keeps on SQLite.

Tokens signed with the gateway's own key, reported by a grpcio client in its own process: one report a call at 32 calls in
flight, batches of 100, a stream of batches, and batches over the control plane's REST. Each report is a label and a
value, so two facts. All results are checked: nothing lost, nothing counted twice. The clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from bench.models import SMALL_MLP, write_repository
from gateway import pb
from tests.support.gatewayprocess import GatewayProcess
from tests.support.oip import Client, connect, request
from tests.support.receipttwin import token

F = pb.feedback
CALLS = 32
BATCH = 100
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def outcome(text: str) -> Any:
    made = F.Outcome(request=text, values={"sold": 1.0})
    made.label.number = 1
    return made


async def _unary(url: str, tokens: Sequence[str], size: int) -> int:
    """Accepted reports."""
    async with grpc.aio.insecure_channel(url, options=_OPTIONS) as channel:
        call = channel.unary_unary(
            "/gateway.v1.Feedback/Report",
            request_serializer=F.ReportRequest.SerializeToString,
            response_deserializer=F.ReportResponse.FromString,
        )
        batches = iter([tokens[at : at + size] for at in range(0, len(tokens), size)])
        accepted = 0

        async def work() -> None:
            nonlocal accepted
            for batch in batches:
                answer = await call(F.ReportRequest(reports=map(outcome, batch)), timeout=60)
                accepted += sum(result.status == F.Result.ACCEPTED for result in answer.results)

        await asyncio.gather(*(work() for _ in range(CALLS if size == 1 else 4)))
    return accepted


def unary(url: str, tokens: Sequence[str], size: int) -> int:
    return asyncio.run(_unary(url, tokens, size))


def stream(url: str, tokens: Sequence[str], size: int) -> int:
    with grpc.insecure_channel(url, options=_OPTIONS) as channel:
        call = channel.stream_unary(
            "/gateway.v1.Feedback/ReportStream",
            request_serializer=F.ReportRequest.SerializeToString,
            response_deserializer=F.ReportSummary.FromString,
        )
        batches = (F.ReportRequest(reports=map(outcome, tokens[at : at + size])) for at in range(0, len(tokens), size))
        return int(call(batches, timeout=120).accepted)


def rest(url: str, tokens: Sequence[str], size: int) -> int:
    accepted = 0
    for at in range(0, len(tokens), size):
        reports = [{"request": text, "label": 1, "values": {"sold": 1.0}} for text in tokens[at : at + size]]
        asked = urllib.request.Request(f"{url}/v1/feedback", json.dumps({"reports": reports}).encode(), method="POST")
        asked.add_header("content-type", "application/json")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            accepted += sum(result["status"] == "accepted" for result in json.load(answer)["results"])
    return accepted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=20_000, help="of each kind (default 20,000)")
    wishes = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = write_repository(folder / "models", (SMALL_MLP,))
        (models / SMALL_MLP.name / "model.yaml").write_text("feedback: {prediction: probability}\n")
        state = folder / "state"
        with GatewayProcess(models, folder / "log", "--state", str(state), "--workers", "2") as gateway:
            gateway.wait_routed(SMALL_MLP.name)
            client = Client(connect(gateway.grpc_url))
            asked = request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)})
            while not (real := client.send(asked).parameters["gateway_request"].string_param):
                time.sleep(0.1)
            key = bytes.fromhex((state / "feedback.key").read_text())
            made = [
                token(number, key, model=SMALL_MLP.name, predictions=[(1, 0.75)])
                for number in range(4 * wishes.reports)
            ]
            kinds = (
                ("gRPC, one report a call, 32 calls in flight", unary, gateway.grpc_url, 1),
                ("gRPC, batches of 100, 4 calls in flight", unary, gateway.grpc_url, BATCH),
                ("gRPC, a stream of batches of 100", stream, gateway.grpc_url, BATCH),
                ("REST on the control plane, batches of 100", rest, gateway.control_url, BATCH),
            )
            print(f"one token of a real answer: {len(real)} characters")
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                for index, (name_of, send, url, size) in enumerate(kinds):
                    mine = made[index * wishes.reports : (index + 1) * wishes.reports]
                    pool.apply(send, (url, mine[:size], size))  # connected, imported
                    began_s = time.perf_counter()
                    accepted = pool.apply(send, (url, mine[size:], size))
                    took_s = time.perf_counter() - began_s
                    rate = accepted / took_s
                    print(f"{name_of}: {rate:,.0f} reports/s ({accepted} accepted of {len(mine) - size})", flush=True)
                    if accepted != len(mine) - size:
                        return 1
            with urllib.request.urlopen(f"{gateway.control_url}/v1/feedback/{SMALL_MLP.name}") as answer:
                (version,) = json.load(answer)["versions"]
            kept = version["accepted"], version["accuracy"]["n"], version["values"]["sold"]["n"]
            print(f"kept: {kept[0]} reports, {kept[1]} labels, {kept[2]} values; expected {len(made)} of each")
            return int(set(kept) != {len(made)})


if __name__ == "__main__":
    sys.exit(main())

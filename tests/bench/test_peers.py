"""Peers side by side: what is sent is right, what comes back is judged, and a run that was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import payloads, procfs
from bench.peers import catalogue, drive, ours, peer, readme, record, table
from bench.peers.works import ALL, IMAGE, SMALL, TEXT

SMALL_BY_GRPC = drive.Load("gRPC", "small", at_once=16)


def row(name: str, per_s: float, **more: object) -> dict[str, object]:
    latency = dict.fromkeys(("p50", "p90", "p99", "p99.9"), 100.0)
    return {
        "peer": name, "protocol": "gRPC", "work": "small", "at_once": 128, "of_peak": None, "rate_per_s": None,
        "requests_per_s": per_s, "latency_us": latency, "cpu_s_per_1000": 0.01, "rss_bytes": 1, "pss_bytes": 1,
        "failed": 0, "lost": {}, "not_sent": 0, "right": 10, "wrong": 0, "unchecked": 0, "example": "", "time": 0,
        **more,
    }  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> record.Record:
    monkeypatch.setenv("GATEWAY_BENCH_CACHE", str(tmp_path))
    return record.begin("kept", fresh=True)[0]


def test_the_gateway_answers_every_work_rightly_by_both_protocols(tmp_path: Path) -> None:
    with ours.start(tmp_path, ALL) as running:
        for protocol in ours.PEER.protocols:
            for work in ALL:
                load = drive.Load(protocol, work.name, at_once=4 if protocol == "gRPC" else 2)
                drive.wait_until_right(ours.PEER, running, load)
                measured = drive.row(ours.PEER, running, load, None, 0.1, 0.0)
                assert measured["right"] > 0, measured
                assert (measured["wrong"], measured["failed"], measured["lost"]) == (0, 0, {}), measured
                assert measured["cpu_s_per_1000"] > 0
        opened = drive.row(ours.PEER, running, drive.Load("REST", "text", of_peak=0.5), 200.0, 0.2, 0.0)
        assert 0 < opened["ok"] + opened["not_sent"] <= 45


def test_an_answer_to_another_row_is_wrong_and_so_is_garbage() -> None:
    right = [payloads.rest_json({"output": answer}) for answer in SMALL.expected()[:2]]
    bodies = [json.dumps({"outputs": json.loads(body)["inputs"]}).encode() for body in right]
    load = drive.Load("REST", "small", at_once=1)
    assert drive._check(ours.PEER, load, [(0, bodies[0], 3), (1, bodies[1], 2)]) == (5, 0, "")
    assert drive._check(ours.PEER, load, [(0, bodies[1], 3), (1, bodies[1], 2)])[:2] == (2, 3)
    for garbage in (b"", b"[]", b'{"outputs": []}', b'{"outputs": [{"data": [1, 2], "shape": [1, 2]}]}', b"\xff"):
        n_right, n_wrong, example = drive._check(ours.PEER, load, [(0, garbage, 1)])
        assert (n_right, n_wrong) == (0, 1), garbage
        assert example


def test_texts_travel_with_their_lengths_and_as_json() -> None:
    texts = np.array([[b"a", b"bcd"]], object)
    assert payloads.infer_request("m", {"input": texts}).endswith(b"\x01\0\0\0a\x03\0\0\0bcd")
    assert json.loads(payloads.rest_json({"input": texts}))["inputs"] == [
        {"name": "input", "datatype": "BYTES", "shape": [1, 2], "data": [["a", "bcd"]]}
    ]


def test_some_texts_are_not_in_the_vocabulary() -> None:
    words = {word for row in TEXT.rows() for word in row.ravel()}
    assert b"word-205" in words


def test_an_image_goes_binary_where_the_server_can_and_as_json_where_not() -> None:
    image = IMAGE.rows()[0]
    assert image.nbytes == 602_112
    assert peer.oip_request(IMAGE, image).body.endswith(image.tobytes())
    assert len(peer.oip_request(IMAGE, image, has_binary=False).body) > 2 * image.nbytes


def test_binary_and_json_answers_are_read_alike() -> None:
    output = {"name": "output", "datatype": "FP32", "shape": [1, 3]}
    values = np.array([[1.5, -2.0, 3e7]], np.float32)
    as_json = json.dumps({"outputs": [{**output, "data": values.ravel().tolist()}]}).encode()
    as_bytes = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": 12}}]}).encode() + values.tobytes()
    assert (peer.oip_answer(as_json) == values).all()
    assert (peer.oip_answer(as_bytes) == values).all()


def test_a_stopped_run_goes_on_where_it_was_and_one_of_other_code_begins_anew(measured: record.Record) -> None:
    measured.rows.append(row("triton", 1.0, at_once=16))
    record.checkpoint(measured)
    again, goes_on = record.begin("kept", fresh=False)
    assert goes_on
    assert again.has("triton", 0, SMALL_BY_GRPC)
    assert not again.has("triton", 1, SMALL_BY_GRPC)
    assert not again.has("gateway", 0, SMALL_BY_GRPC)
    assert record.begin("kept", fresh=True)[0].rows == []
    measured.stamp["commit"] = "another"
    record.checkpoint(measured)
    assert record.begin("kept", fresh=False)[1] is False


def test_open_loops_are_shares_of_the_best_closed_loop_of_that_peer_and_protocol(measured: record.Record) -> None:
    measured.rows += [row("triton", 5.0, at_once=1), row("triton", 7.0), row("triton", 9.0, protocol="REST")]
    assert measured.peak_per_s("triton", 0, drive.Load("gRPC", "small", of_peak=0.5)) == 7.0
    assert measured.peak_per_s("triton", 1, drive.Load("gRPC", "small", of_peak=0.5)) is None


def test_every_peer_gets_the_same_loads_of_a_work_and_closed_loops_come_first() -> None:
    for mode in catalogue.MODES.values():
        wanted = {load for load in catalogue.loads(mode, ours.PEER, []) if load.work == "small"}
        for each in catalogue.PEERS.values():
            loads = catalogue.loads(mode, each, ["small"])
            assert set(loads) == {load for load in wanted if load.protocol in each.protocols}
            is_open = [load.of_peak is not None for load in loads if load.protocol == each.protocols[0]]
            assert is_open == sorted(is_open)


def test_the_kept_run_fits_into_twenty_minutes() -> None:
    turns = catalogue.turns(catalogue.KEPT, [])
    planned_s = sum(catalogue.seconds(catalogue.KEPT, load) for each, time in turns for load in
                    catalogue.loads(catalogue.KEPT, each, [], time))  # fmt: skip
    planned_s += sum(catalogue.trial_seconds(catalogue.KEPT, each) for each, time in turns if not time)
    assert planned_s + 5 * len(turns) < 19 * 60


def test_the_report_says_what_was_missed_and_how_far_the_machine_wandered(measured: record.Record) -> None:
    measured.rows += [row("limit", 100.0), row("gateway", 50.0), row("triton", 10.0), row("mlserver", 0.5)]
    measured.rows += [row("limit", 110.0, time=1), row("gateway", 50.0, time=1)]
    text = "\n".join(readme.section(measured, Path("bench/peers/results/x.json")))
    assert "| **this gateway, gRPC** | **50** | 0.48 |" in text
    assert "8 times Triton, Python backend |  |  | 5.0 **missed** |  |" in text
    assert "60 times MLServer |  |  | 100.0 |  |" in text
    assert "differs by 5 % (median)" in text
    assert table.limit_per_s(measured, row("gateway", 1.0)) == 105.0


def test_a_process_and_all_that_descend_from_it_are_found() -> None:
    import os
    import subprocess

    with subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()
        family = procfs.tree(shell.pid)
        assert len(family) == 2
        assert family[0] == shell.pid
        assert shell.pid in procfs.tree(os.getpid())
        for pid in family:
            os.kill(pid, 9)

"""The supervisor with real processes and real signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from gateway.config.deployment import WorkerOptions
from gateway.serving.backoff import Backoff
from gateway.serving.supervisor import worker_command
from tests.serving.supervised import CODE, Supervised, is_alive
from tests.support.conditions import eventually

IGNORES_SIGTERM = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("listening", port=1)
say("ready")
note(did="ignores")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_every_worker_once_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with Supervised(tmp_path, workers=3).until_announced() as supervised:
        supervised.signal(number)
        assert supervised.ended() == 0
        assert sorted(note["worker"] for note in supervised.notes("asked")) == [0, 1, 2]
        assert supervised.out.count("gateway is") == 1
        assert supervised.logged("stopping")[0]["signal"] == number.name


def test_workers_share_the_ports_that_were_picked_and_the_banner_names_them(tmp_path: Path) -> None:
    with Supervised(tmp_path, workers=2).until_announced() as supervised:
        first, second = supervised.notes("start")
        assert first["port"] == second["port"] > 0
        assert first["grpc_port"] == second["grpc_port"] not in (0, first["port"])
        assert {first["worker"], second["worker"]} == {0, 1}
        assert first["accept"] == second["accept"] == "at_once"
        assert f"127.0.0.1:{first['grpc_port']} (--grpc-port), 127.0.0.1:{first['port']} (--port)" in supervised.out


def test_workers_can_listen_on_the_ports_that_the_supervisor_holds(tmp_path: Path) -> None:
    body = """
    import socket
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((options["host"], options["grpc_port"]))
    listener.listen()
    serve()
    """
    with Supervised(tmp_path, body, workers=2).until_announced() as supervised:
        socket.create_connection(("127.0.0.1", supervised.notes("start")[0]["grpc_port"]), timeout=5).close()


def test_the_banner_waits_for_the_last_worker_and_shows_states_with_reasons(tmp_path: Path) -> None:
    body = """
    say("version", model="fraud", version="2", state="LOADING", reason="", seconds=0)
    say("version", model="fraud", version="2", state="READY", reason="", seconds=0.1)
    say("version", model="fraud", version="10", state="UNAVAILABLE", reason="model.onnx is truncated", seconds=0)
    if options["worker"] == 1:
        say("version", model="fraud", version="2", state="UNAVAILABLE", reason="out of memory", seconds=0)
    serve()
    """
    with Supervised(tmp_path, body, workers=2).until_announced() as supervised:
        head, _, *rows = supervised.out.splitlines()
        assert "0 of 2 versions, 1 model, 2 workers" in head
        assert rows[0].split() == ["fraud", "2", "UNAVAILABLE", "in", "worker", "1:", "out", "of", "memory"]
        assert rows[1].split() == ["fraud", "10", "UNAVAILABLE", "model.onnx", "is", "truncated"]


def test_with_json_logs_the_announcement_is_one_event_and_no_banner(tmp_path: Path) -> None:
    body = """
    say("version", model="m", version="1", state="READY")
    serve()
    """
    with Supervised(tmp_path, body, log_format="json") as supervised:
        event = eventually(lambda: supervised.logged("gateway ready"), "the event")[0]
        assert event["versions"] == [{"model": "m", "version": "1", "state": "READY", "reason": ""}]
        assert event["grpc_port"] == supervised.notes("start")[0]["grpc_port"]
        assert supervised.out == ""


def test_a_killed_worker_is_reported_and_replaced_by_one_that_accepts_when_ready(tmp_path: Path) -> None:
    with Supervised(tmp_path, workers=2).until_announced() as supervised:
        victim = next(note for note in supervised.notes("start") if note["worker"] == 1)
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: supervised.logged("worker ready"), "the new worker")
        death = supervised.logged("worker died")[0]
        assert (death["worker"], death["exit"], death["restart_in_s"]) == (1, "killed by SIGKILL", 0.1)
        starts = [note for note in supervised.notes("start") if note["worker"] == 1]
        assert [start["accept"] for start in starts] == ["at_once", "when_ready"]
        supervised.signal(signal.SIGTERM)
        assert supervised.ended() == 0
        assert supervised.out.count("gateway is") == 1


def test_a_worker_that_was_ready_and_keeps_dying_is_restarted_for_ever_with_growing_pauses(tmp_path: Path) -> None:
    with Supervised(tmp_path, 'say("ready")\nsys.exit(3 if starts() < 6 else serve())').until_announced() as supervised:
        eventually(lambda: len(supervised.logged("worker died")) == 5, "five deaths")
        deaths = supervised.logged("worker died")
        assert [death["restart_in_s"] for death in deaths] == [0.1, 0.2, 0.4, 0.8, 1.6]
        assert {death["exit"] for death in deaths} == {"exit code 3"}
        supervised.signal(signal.SIGTERM)  # in the middle of a pause
        assert supervised.ended() == 0


def test_a_stray_gateway_py_in_the_folder_of_the_caller_is_not_what_workers_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.py").write_text("raise SystemExit('stray')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CODE))
    *command, flag, options = worker_command(WorkerOptions(models=tmp_path))
    assert WorkerOptions.model_validate_json(options).models == tmp_path
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, flag in done.stdout) == (0, True), done.stderr


def test_backoff_doubles_to_ten_seconds_and_starts_anew_after_health() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(1.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.pause_s(29.9) == 10.0
    assert [backoff.pause_s(30.0), backoff.pause_s(0.0)] == [0.1, 0.2]


def test_five_deaths_before_ready_end_everything_with_1_and_the_last_error(tmp_path: Path) -> None:
    body = """
    if options["worker"] == 0:
        serve()
    else:
        os.kill(os.getpid(), signal.SIGSEGV)
    """
    with Supervised(tmp_path, body, workers=2) as supervised:
        assert supervised.ended() == 1
        assert "refused: worker 1 died 5 times before it was ready; last: killed by SIGSEGV" in supervised.err
        assert len([note for note in supervised.notes("start") if note["worker"] == 1]) == 5
        assert [note["worker"] for note in supervised.notes("asked")] == [0]
        assert supervised.out == ""


def test_a_fatal_line_at_start_ends_everything_at_once_with_its_text(tmp_path: Path) -> None:
    with Supervised(tmp_path, 'say("fatal", error="--models x: holds no model")\nsys.exit(1)') as supervised:
        assert supervised.ended() == 1
        assert "refused: --models x: holds no model" in supervised.err
        assert len(supervised.notes("start")) == 1


def test_a_fatal_line_of_a_restarted_worker_does_not_take_the_others_down(tmp_path: Path) -> None:
    body = """
    if options["accept"] == "when_ready" and starts() < 4:
        say("fatal", error="file vanished")
        sys.exit(1)
    serve()
    """
    with Supervised(tmp_path, body, workers=2).until_announced() as supervised:
        os.kill(supervised.notes("start")[0]["pid"], signal.SIGKILL)
        eventually(lambda: supervised.logged("worker ready"), "a restart that works")
        assert supervised.logged("worker died")[1]["error"] == "file vanished"


def test_a_worker_that_hangs_is_killed_after_the_drain_and_the_exit_code_is_1(tmp_path: Path) -> None:
    with Supervised(tmp_path, IGNORES_SIGTERM, drain_s=0.1).until_announced() as supervised:
        supervised.signal(signal.SIGTERM)
        assert supervised.ended() == 1
        assert supervised.logged("worker hangs and is killed")
        assert not is_alive(supervised.notes("start")[0]["pid"])


def test_a_worker_that_drains_badly_makes_the_exit_code_1(tmp_path: Path) -> None:
    with Supervised(tmp_path, 'serve()\nsys.exit(options["worker"])', workers=2).until_announced() as supervised:
        supervised.signal(signal.SIGTERM)
        assert supervised.ended() == 1
        failure = supervised.logged("worker did not end cleanly")
        assert [(line["worker"], line["exit"]) for line in failure] == [(1, "exit code 1")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_kills_now(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with Supervised(tmp_path, IGNORES_SIGTERM, workers=2, drain_s=60).until_announced() as supervised:
        supervised.signal(signal.SIGTERM)
        eventually(lambda: supervised.logged("stopping"), "the first signal's effect")
        supervised.signal(number)
        assert supervised.ended() == code
        assert not any(is_alive(note["pid"]) for note in supervised.notes("start"))


def test_a_stop_during_start_is_clean_even_before_the_worker_has_a_handler(tmp_path: Path) -> None:
    body = """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note(did="loads")
    signal.pause()
    """
    with Supervised(tmp_path, body) as supervised:
        eventually(lambda: supervised.notes("loads"), "the worker's start")
        supervised.signal(signal.SIGTERM)
        assert supervised.ended() == 0


def test_workers_of_a_supervisor_that_was_killed_notice_and_drain(tmp_path: Path) -> None:
    with Supervised(tmp_path, workers=2).until_announced() as supervised:
        supervised.signal(signal.SIGKILL)
        supervised.ended()
        eventually(lambda: len(supervised.notes("lifeline")) == 2, "both workers' end of file")
        eventually(lambda: not any(is_alive(n["pid"]) for n in supervised.notes("start")), "both workers' end")


def test_a_worker_keeps_environment_and_folder_and_inherits_only_its_own_descriptors(tmp_path: Path) -> None:
    body = """
    note(did="looks", cwd=os.getcwd(), word=os.environ["WORD"], sid=os.getsid(0),
         fds=sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")))
    serve()
    """
    with Supervised(tmp_path, body, env={"WORD": "kept"}, workers=2).until_announced() as supervised:
        looks = {note["pid"]: note for note in supervised.notes("looks")}
        assert len(looks) == 2
        for start in supervised.notes("start"):
            seen = looks[start["pid"]]
            assert (seen["cwd"], seen["word"], seen["sid"]) == (str(tmp_path), "kept", seen["pid"])
            own = {0, 1, 2, *(start[f"{name}_fd"] for name in ("control", "telemetry", "lifeline", "command"))}
            assert set(seen["fds"]) == own


def test_lines_that_are_no_events_are_reported_and_harm_nothing(tmp_path: Path) -> None:
    body = r"""
    os.write(options["control_fd"], b'garbage\n[1]\n{"event": "something new"}\n' + b"x" * 2**20 + b"xx\n")
    serve()
    """
    with Supervised(tmp_path, body).until_announced() as supervised:
        assert [line["got"] for line in supervised.logged("control line ignored")][:2] == ["b'garbage'", "b'[1]'"]


def test_a_command_that_cannot_be_started_is_given_up_with_its_reason(tmp_path: Path) -> None:
    with Supervised(tmp_path, env={"WORKER_PYTHON": str(tmp_path / "none")}) as supervised:
        assert supervised.ended() == 1
        assert "worker 0 died 5 times before it was ready; last: could not be started: No such file" in supervised.err


@pytest.mark.parametrize(("field", "flag"), [("port", "--port"), ("grpc_port", "--grpc-port")])
def test_a_port_in_use_is_refused_by_its_flag_before_any_worker_starts(tmp_path: Path, field: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with Supervised(tmp_path, **{field: number}) as supervised:
            assert supervised.ended() == 1
            assert f"refused: {flag} {number}: in use on 127.0.0.1" in supervised.err
            assert "or give another port" in supervised.err
            assert not supervised.notes("start")


def test_two_supervisors_cannot_share_a_port_by_accident(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Supervised(tmp_path / "a").until_announced() as first:
        number = first.notes("start")[0]["grpc_port"]
        with Supervised(tmp_path / "b", grpc_port=number) as second:
            assert second.ended() == 1
            assert f"--grpc-port {number}: in use" in second.err

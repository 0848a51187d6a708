"""Shares of kept runs over our own versions: old files are read, machines told apart, and both colours of page do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import history, historypicture

LIMIT = "load_grpc__small_mlp"


def keep(folder: Path, date: str, *figures: dict[str, object], **stamp: object) -> None:
    stamp = {"date": f"{date}T01:02:03Z", "mode": "full", "subject": "gateway", "commit": f"c{date[-2:]}",
             "dirty": False, "cpu": "one", "cores": 2, **stamp}  # fmt: skip
    (folder / f"{date}-{len(list(folder.iterdir()))}.json").write_text(json.dumps({"stamp": stamp, "figures": figures}))


def share(name: str, value: float | None, bench: str = LIMIT, **more: object) -> dict[str, object]:
    return {"bench": bench, "name": name, "unit": "/s", "share": value, "shares": [], "target": None, **more}


def test_runs_are_read_by_date_and_what_they_did_not_measure_is_a_gap(tmp_path: Path) -> None:
    keep(tmp_path, "2026-02-02", share("8x16 requests", 0.5), share("64x1 requests", 0.7))
    keep(tmp_path, "2026-01-01", share("8x16 requests", 0.4), share("image_mean tensors", None, unit="GB/s"))
    keep(tmp_path, "2026-03-03", share("64x1 requests", 0.8, shares=[0.9, 0.7], target=0.6))
    runs = history.kept(tmp_path)
    assert [run.commit for run in runs] == ["c01", "c02", "c03"]
    assert history.all_series(runs) == ["small_mlp 8x16", "small_mlp 64x1"]
    assert [[(place, share.share) for place, share in line] for line in history.stretches(runs, "small_mlp 64x1")] == [
        [(1, 0.7), (2, 0.8)]
    ]
    assert "| small_mlp 64x1 | 0.6 |  | 0.70 | 0.80 (0.70-0.90) |" in history.table(runs)
    assert "| small_mlp 8x16 |  | 0.40 | 0.50 |  |" in history.table(runs)
    assert "0.40" not in history.table(runs, newest=2)
    assert history.change(runs, "small_mlp 64x1") == pytest.approx(0.8 / 0.7 - 1)


def test_an_old_file_without_what_newer_ones_say_is_read(tmp_path: Path) -> None:
    old = {"stamp": {"date": "2025-01-01T00:00:00Z", "commit": "abc"},
           "figures": [{"bench": LIMIT, "name": "8x16 requests", "unit": "/s", "share": 0.25}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(old))
    (run,) = history.kept(tmp_path)
    assert run.shares == {"small_mlp 8x16": history.Share(0.25)}
    assert "unknown processor" in history.table([run])


def test_quick_runs_other_servers_shareless_and_broken_files_are_no_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "2026-01-01", share("8x16 requests", 0.5), mode="quick")
    keep(tmp_path, "2026-01-02", share("8x16 requests", 0.5), subject="target")
    keep(tmp_path, "2026-01-03", share("p99", 0.5, unit="us"), share("memory", None))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"stamp": {"date": "x"}}')
    assert history.kept(tmp_path) == []
    said = capsys.readouterr().err
    assert [name for name in ("broken", "list", "other") if f"{name}.json is not a result" in said] == [
        "broken", "list", "other",
    ]  # fmt: skip
    assert history.main(tmp_path) == 1
    assert "make bench" in capsys.readouterr().err


def test_a_line_breaks_where_the_machine_changes_and_none_is_compared_with_another(tmp_path: Path) -> None:
    for day, cpu in ((1, "one"), (2, "one"), (3, "two")):
        keep(tmp_path, f"2026-01-0{day}", share("8x16 requests", day / 10), cpu=cpu, dirty=day == 3)
    runs = history.kept(tmp_path)
    lines = [[place for place, _ in line] for line in history.stretches(runs, "small_mlp 8x16")]
    assert lines == [[0, 1], [2]]
    assert history.change(runs, "small_mlp 8x16") is None
    assert history.change(runs[:2], "small_mlp 8x16") == pytest.approx(1.0)
    text = history.table(runs)
    assert "On one, 2 cores: c01, c02." in text
    assert "On two, 2 cores: c03+." in text


def test_costs_and_rest_are_no_shares_of_the_limit() -> None:
    names = [
        history.series(LIMIT, "8x16 requests"),
        history.series("load_grpc__large_tensor", "image_mean requests"),
        history.series("load_grpc__monitored", "8x16 requests, beside no monitoring"),
        history.series("load_rest__shapes", "REST JSON, 30 floats"),
        history.series("load_rest__beside_mlserver", "REST JSON, 30 floats"),
    ]
    assert names == [
        "small_mlp 8x16", "image_mean", "monitored 8x16, beside no monitoring", "REST JSON, 30 floats",
        "beside_mlserver REST JSON, 30 floats",
    ]  # fmt: skip
    assert [history.is_of_limit(name) for name in names] == [True, True, False, False, False]


def test_the_kept_runs_of_this_repository_are_drawn_and_read_on_white_and_on_black(tmp_path: Path) -> None:
    runs = history.kept()
    assert "small_mlp 8x16" in history.all_series(runs)
    svg, png = historypicture.draw(runs, tmp_path)
    text = svg.read_text()
    assert "fill: #ffffff" not in text
    assert "fill: #000000" not in text.lower()
    assert png.read_bytes()[:4] == b"\x89PNG"
    for colour in (historypicture.INK, *historypicture.COLOURS):
        light = luminance(colour)
        assert 1.05 / (light + 0.05) >= 3, f"{colour} on white"
        assert (light + 0.05) / 0.05 >= 3, f"{colour} on black"


def luminance(colour: str) -> float:
    """Relative, as WCAG 2 has it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

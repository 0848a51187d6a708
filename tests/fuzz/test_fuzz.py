"""The quick run: the kept corpus and some thousand mutations of it, the same ones every time."""

from __future__ import annotations

import pytest

from gateway.native import codec
from tests.fuzz import loop, targets


@pytest.mark.parametrize(("target", "n"), [("codec", 6000), ("session", 1200), ("json", 3000)])
def test_corpus_and_mutations_find_nothing(target: str, n: int) -> None:
    run = loop.fuzz(target, seed=20, n=n)
    assert [f"{stuff.hex()}: {error!r}" for stuff, error in run.findings] == []
    assert run.n_runs == n
    assert len(run.behaviours) > 60, "the mutations no longer reach anywhere"


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_corpus_stays_small(target: str) -> None:
    corpus = loop.kept(target)
    assert 10 <= len(corpus) <= 80
    assert sum(map(len, corpus)) < 32_768


def test_a_reader_that_disagrees_with_protobuf_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop itself can fail: a codec that drops an id."""
    honest = codec.parse

    class Careless:
        @staticmethod
        def parse(stuff: bytes) -> dict[str, object]:
            return {**honest(stuff), "id": ""}

    monkeypatch.setattr(targets, "codec", Careless)
    assert loop.fuzz("codec", seed=1, n=500).findings

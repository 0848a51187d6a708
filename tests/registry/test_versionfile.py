"""version.yaml: what it may say, and what is said when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.registry.versionfile import VersionFile, load_version_file


def read(folder: Path, text: str) -> VersionFile:
    (folder / "version.yaml").write_text(text)
    return load_version_file(folder)


def test_without_the_file_nothing_is_said(tmp_path: Path) -> None:
    assert load_version_file(tmp_path) == VersionFile()
    assert VersionFile().documents() == ({}, {})


def test_lineage_and_card_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
lineage: {parent: "1", run: mlflow:/runs/8f2c, data: s3://ledger/2026-06, code: 3fe1ab2}
card:
  summary: Chance that a card payment is fraud
  owner: risk@example.org
  metrics: {auc: 0.972}
  tags: [payments]
""",
    )
    assert file.documents() == (
        {"parent": "1", "run": "mlflow:/runs/8f2c", "data": "s3://ledger/2026-06", "code": "3fe1ab2"},
        {
            "summary": "Chance that a card payment is fraud",
            "owner": "risk@example.org",
            "metrics": {"auc": 0.972},
            "tags": ["payments"],
        },
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("lineage: {parent: 1}", "lineage.parent: got 1, expected text"),
        ('lineage: {parent: "v1"}', 'lineage.parent: got "v1", expected text that matches ^[1-9][0-9]{0,17}$'),
        ("lineage: {dta: x}", "lineage.dta: unknown field, expected data"),
        ("card: {metrics: {auc: high}}", 'card.metrics.auc: got "high", expected a number'),
        ("cards: {}", "cards: unknown field, expected card"),
    ],
)
def test_a_fault_names_file_field_and_what_was_expected(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/version.yaml: {fault}"

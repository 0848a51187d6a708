"""<version>/version.yaml: where a version comes from, and what people should know of it. All of it optional."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.files import load_yaml

FILE_NAME = "version.yaml"

Line = Annotated[str, Field(min_length=1, max_length=2000)]


class Lineage(BaseModel):
    """From what it was made. References for people and tools: nothing here is fetched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")] | None = None
    """The version it was trained further from, or is to replace."""
    run: Line | None = None
    """The training run, as the tracker names it: an MLflow run, a URL."""
    data: Line | None = None
    """The training data: a path, a table with its snapshot, a URL."""
    code: Line | None = None
    """The code that made it: a commit, an image with its digest."""


class Card(BaseModel):
    """A short model card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: Line | None = None
    """One sentence: what it predicts, from what."""
    owner: Line | None = None
    """Who answers for it."""
    intended_use: Line | None = None
    limitations: Line | None = None
    """Where it must not be used, or is known to be bad."""
    metrics: dict[str, float] = {}
    """As measured before release: {auc: 0.972}."""
    license: Line | None = None
    tags: list[Line] = []
    links: dict[str, Line] = {}
    """Name -> URL: report, dashboard, ticket."""


class VersionFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lineage: Lineage = Lineage()
    card: Card = Card()

    def documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lineage and card as the store keeps them: what was written, nothing else."""
        return self.lineage.model_dump(exclude_defaults=True), self.card.model_dump(exclude_defaults=True)


def load_version_file(folder: Path) -> VersionFile:
    """Of a version's folder; empty without the file. ConfigError has a line per fault, naming file and field."""
    path = folder / FILE_NAME
    return load_yaml(path, VersionFile) if path.exists() else VersionFile()

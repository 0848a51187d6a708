"""`drift:` and `webhooks:` of a deployment file: what is taken, and what is refused by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.deployment import ControlOptions, load_deployment
from gateway.errors import ConfigError


def load(tmp_path: Path, **fields: Any) -> Any:
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"models": "models", **fields}))
    return load_deployment(file, {})


def test_a_file_without_them_has_the_defaults_and_tells_nobody(tmp_path: Path) -> None:
    deployment = load(tmp_path)
    assert deployment.webhooks == ()
    assert (deployment.drift.budget_days, deployment.drift.tolerance, deployment.drift.major) == (30.0, 0.04, 0.25)


def test_a_secrets_path_starts_at_the_files_folder_and_reaches_the_control_process(tmp_path: Path) -> None:
    hook = {"name": "pager", "url": "https://hooks.example/x", "secret_file": "secret", "timeout": "2s"}
    deployment = load(tmp_path, webhooks=[hook], drift={"budget_days": 7})
    passed = ControlOptions.model_validate_json(ControlOptions(**deployment.model_dump()).model_dump_json())
    assert passed.webhooks[0].secret_file == tmp_path / "secret"
    assert passed.webhooks[0].timeout == 2.0
    assert passed.drift.budget_days == 7.0


def test_a_url_is_not_shown_by_accident(tmp_path: Path) -> None:
    deployment = load(tmp_path, webhooks=[{"name": "chat", "url": "https://hooks.example/secret-part"}])
    assert "secret-part" not in repr(deployment)


def test_a_secret_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    deployment = load(tmp_path, webhooks=[{"name": "pager", "url": "http://x", "secret_file": "nowhere"}])
    with pytest.raises(ConfigError, match=r"webhooks pager: secret_file .*nowhere: No such file"):
        deployment.check()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"webhooks": [{"name": "a", "url": "hooks.example"}]}, "webhooks[0].url: "),
        ({"webhooks": [{"name": "a", "url": "ftp://hooks.example"}]}, "webhooks[0].url: "),
        ({"webhooks": [{"name": "a b", "url": "http://x"}]}, "webhooks[0].name: "),
        ({"webhooks": [{"name": "a", "url": "http://x"}] * 2}, "each name once, and 'a' stands 2 times"),
        ({"webhooks": [{"name": "a", "url": "http://x", "timeout": "soon"}]}, "webhooks[0].timeout: "),
        ({"webhooks": [{"name": "a", "url": "http://x", "secret": "s"}]}, "webhooks[0].secret: "),
        ({"drift": {"tolerance": 0.5}}, "major to be tolerance (0.5) or more"),
        ({"drift": {"budget_days": 0}}, "drift.budget_days: "),
        ({"drift": {"tolerence": 0.1}}, "drift.tolerence: "),
    ],
)
def test_what_is_wrong_is_refused_by_field(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, **fields)
    assert says in str(refused.value)

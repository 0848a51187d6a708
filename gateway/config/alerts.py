"""What a deployment file says about drift and about who is told of it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.config.units import expected, parse_duration_us
from gateway.errors import ConfigError

MAX_WEBHOOKS = 16
LEAST_SECRET_BYTES = 16
"""Below it a signature could be guessed."""


def _seconds(value: Any) -> float:
    try:
        return parse_duration_us(value) / 1e6
    except ValueError as error:
        raise expected(str(error)) from None


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not value.isascii() or any(letter.isspace() for letter in value):
        raise expected("a URL such as https://hooks.example/drift")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Webhook(_Part):
    """Events are sent there as CloudEvents, signed by https://www.standardwebhooks.com when there is a secret."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    """In logs and lists instead of the URL, which may hold a secret."""
    url: Annotated[str, AfterValidator(_url), Field(repr=False)]
    secret_file: Path | None = None
    """Holds the key of the signature; read at each delivery, so it can be changed while the gateway runs."""
    timeout: Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=60)] = 5.0


def _each_once(webhooks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
    names = [webhook.name for webhook in webhooks]
    for name in names:
        if names.count(name) > 1:
            raise expected(f"each name once, and {name!r} stands {names.count(name)} times")
    return webhooks


Webhooks = Annotated[tuple[Webhook, ...], Field(max_length=MAX_WEBHOOKS), AfterValidator(_each_once)]


class DriftOptions(_Part):
    """See `gateway.monitoring.baseline.Settings`."""

    budget_days: Annotated[float, Field(gt=0)] = 30.0
    """At most one false page of a version in that many days, over all its columns."""
    tolerance: Annotated[float, Field(gt=0)] = 0.04
    """PSI up to which nothing is wrong."""
    major: Annotated[float, Field(gt=0)] = 0.25
    """PSI beyond which no history of like traffic excuses."""
    tolerance_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of rows that may be missing, out of range or unseen, above the profile's."""
    major_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    least_requests: Annotated[int, Field(ge=1)] = 100
    """In a window that is judged; quieter minutes are put together."""

    @model_validator(mode="after")
    def _in_order(self) -> DriftOptions:
        for small, large in (("tolerance", "major"), ("tolerance_rate", "major_rate")):
            if getattr(self, small) > getattr(self, large):
                raise expected(f"{large} to be {small} ({getattr(self, small)}) or more")
        return self


def secret_of(webhook: Webhook) -> bytes | None:
    """The key: the file's text, or what whsec_ and base64 stand for. ConfigError names the file."""
    if webhook.secret_file is None:
        return None
    place = f"webhooks {webhook.name}: secret_file {webhook.secret_file}"
    try:
        text = webhook.secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"{place}: {reason}") from None
    try:
        key = (
            base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else text.encode()
        )
    except ValueError:
        raise ConfigError(f"{place}: expected base64 after whsec_") from None
    if len(key) < LEAST_SECRET_BYTES:
        raise ConfigError(f"{place}: got {len(key)} bytes, expected {LEAST_SECRET_BYTES} or more: openssl rand -hex 32")
    return key

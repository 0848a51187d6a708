"""What `gateway serve` may be told, by flag or by file, and what it then tells each worker.

A flag wins over the file. Every refusal names the flag or the file's field, what came and the cure; they are all
found before a process is started, so that a typing error is one line and not N dying workers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.config.alerts import DriftOptions, Webhooks, secret_of
from gateway.config.files import error_lines, load_yaml, read_mapping
from gateway.config.limits import Limits
from gateway.config.shadows import Shadowing
from gateway.config.units import expected, parse_duration_us, parse_every
from gateway.errors import ConfigError

FLAGS = {
    "models": "--models",
    "state": "--state",
    "store": "--store",
    "host": "--host",
    "port": "--port",
    "grpc_port": "--grpc-port",
    "control_port": "--control-port",
    "workers": "--workers",
    "drain_s": "--drain",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
    "log_format": "--log-format",
    "model_control": "--model-control",
    "access_log": "--access-log",
    "forward_headers": "--forward-headers",
}
"""Field -> flag. `limits`, `drift` and `webhooks` have none: they are set in the file."""

MAX_WORKERS = 256
"""One per core of a large machine; above it the number is a typing error, and each costs a process with its models."""

_PATHS = ("models", "state", "tls_cert", "tls_key")

STORE_FILE = "gateway.db"
"""In the state folder."""
STORE_VARIABLE = "GATEWAY_STORE"
"""In the environment: the store's URL, which may hold a password and is nothing for a command line."""
STORE_SCHEMES = ("sqlite", "postgresql")


def _seconds(value: Any) -> float:
    try:
        return parse_duration_us(value) / 1e6
    except ValueError as error:
        raise expected(str(error)) from None


def _every(value: Any) -> int:
    try:
        return parse_every(value)
    except ValueError as error:
        raise expected(str(error)) from None


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise expected(f"a regular expression of header names such as x-.*|tenant; this one has {error}") from None
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, BeforeValidator(_seconds)]


class DeploymentFile(BaseModel):
    """The fields as a --config file may hold them: all optional, unknown ones refused. Relative paths start at the
    file's folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Path | None = None
    """Model repository: DIR/<model>/<version>/model.onnx."""
    state: Path | None = None
    """Where the gateway keeps what must outlive it: routes, versions, the audit log."""
    store: Annotated[str | None, Field(min_length=1, repr=False)] = None
    """URL of a database to keep that in instead of the file in `state`; it may hold a password."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port = 8001
    control_port: Port = 8002
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    drain_s: Seconds = 30.0
    """From SIGTERM until requests in flight are given up. Written as a duration; a bare number is seconds."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_format: Literal["console", "json"] = "console"
    model_control: bool = False
    """Whether callers may load and unload models (RepositoryModelLoad, RepositoryModelUnload)."""
    access_log: Annotated[int, BeforeValidator(_every)] = 0
    """Every Nth request gets a line in the log; 0: none does. Written as N or as a fraction."""
    forward_headers: Annotated[str, AfterValidator(_pattern)] = ""
    """Regular expression of whole header names, lower case: those become parameters of the request. Empty: none."""
    drift: DriftOptions = DriftOptions()
    """When a change of what models see and say is worth a page."""
    webhooks: Webhooks = ()
    """Who is told."""
    limits: Limits = Limits()
    shadows: Shadowing = Shadowing()


class Deployment(DeploymentFile):
    """One whole deployment: flags over file over defaults. Port 0 asks the kernel for a free one."""

    models: Path

    def check(self) -> None:
        """Refuse what cannot work, before any process is started. ConfigError has one line per fault, naming flag and
        cure.
        """
        faults = [
            *_models_faults(self.models),
            *_state_faults(self.state),
            *_store_faults(self.store),
            *_port_faults(self),
            *_tls_faults(self.tls_cert, self.tls_key),
            *_webhook_faults(self.webhooks),
        ]
        if faults:
            raise ConfigError("\n".join(faults))

    def store_url(self) -> str | None:
        """Where routes are kept; None: nowhere."""
        if self.store is not None:
            return self.store
        return None if self.state is None else f"sqlite:///{self.state.absolute()}/{STORE_FILE}"


class WorkerOptions(Deployment):
    """What one worker process is started with, as JSON. Its ports are real numbers: the supervisor holds them."""

    worker: Annotated[int, Field(ge=0)] = 0
    """Index of the worker, 0 .. workers - 1; the same after a restart."""
    accept: Literal["at_once", "when_ready"] = "at_once"
    """at_once: listen first and answer health while models load. when_ready: a restarted worker takes no connection
    its siblings could serve.
    """
    control_fd: int | None = None
    """Write end of a pipe for JSON lines to the supervisor; None when started by hand."""
    telemetry_fd: int | None = None
    """Write end of a pipe for snapshots to the supervisor's metrics; None: nobody wants them."""
    lifeline_fd: int | None = None
    """Read end of a pipe that nobody writes to: end of file means that the supervisor is gone: drain.
    """
    command_fd: int | None = None
    """Read end of a pipe with JSON lines from the supervisor; None when started by hand."""
    scratch: Path | None = None
    """Private folder for overrides of models, shared by all workers; None without model_control."""
    routes_folder: Path | None = None
    """Where the last routes are kept, for a worker that starts without the store; shared by all workers."""


class ControlOptions(Deployment):
    """What the control process is started with, as JSON; `state` and `store` say where the workers are met."""

    is_ephemeral: bool = False
    """Nothing that is kept outlives this run."""
    listen_fd: int | None = None
    """The bound socket of the control port; None: bind it."""
    link_fd: int | None = None
    """A socket of JSON lines to the supervisor, which knows what its workers counted; None when started by hand."""
    lifeline_fd: int | None = None
    """As a worker's."""


def load_deployment(config: Path | None, flags: Mapping[str, Any]) -> Deployment:
    """Flags (None = not given) over the file over defaults; not yet checked against the machine. ConfigError as in
    `check`.
    """
    merged: dict[str, Any] = {}
    if config is not None:
        load_yaml(config, DeploymentFile)  # for its errors, which name file and field
        merged = read_mapping(config)  # what was written, without the defaults
        for name in _PATHS:
            if merged.get(name) is not None:
                merged[name] = config.parent / Path(merged[name]).expanduser()
        for webhook in merged.get("webhooks", ()):
            if webhook.get("secret_file") is not None:
                webhook["secret_file"] = config.parent / Path(webhook["secret_file"]).expanduser()
    merged |= {name: value for name, value in flags.items() if value is not None}
    if merged.get("models") is None:
        raise ConfigError(
            "--models: missing; name the folder that holds <model>/<version>/model.onnx, or set `models` in --config"
        )
    try:
        return Deployment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_name_flag(line) for line in error_lines(error, merged, Deployment))) from None


def _name_flag(line: str) -> str:
    field, colon, rest = line.partition(": ")
    return FLAGS.get(field, field) + colon + rest


def _models_faults(models: Path) -> list[str]:
    cure = "point --models at a folder that holds <model>/<version>/model.onnx"
    if not models.exists():
        return [f"--models {models}: no such folder; {cure}"]
    if not models.is_dir():
        return [f"--models {models}: is a file, expected a folder; {cure}"]
    if not os.access(models, os.R_OK | os.X_OK):
        return [f"--models {models}: permission denied; make it readable for this user, or {cure}"]
    return []


def _state_faults(state: Path | None) -> list[str]:
    if state is None:
        return []
    cure = "name a folder that this user may write to; it is made when it is missing"
    if os.path.exists(state) and not os.path.isdir(state):
        return [f"--state {state}: is a file, expected a folder; {cure}"]
    # os.path.exists, because Path's raises where a folder above may not be entered.
    nearest = next(folder for folder in (state, *state.absolute().parents) if os.path.exists(folder))
    if not os.access(nearest, os.W_OK | os.X_OK):
        return [f"--state {state}: permission denied in {nearest}; {cure}"]
    return []


def _store_faults(store: str | None) -> list[str]:
    scheme, colon, _ = (store or "").partition(":")
    if store is None or (colon and scheme.partition("+")[0] in STORE_SCHEMES):
        return []
    known = "sqlite:///FOLDER/gateway.db or postgresql://USER@HOST/DATABASE"
    shown = f'"{scheme}:..."' if colon else "no URL"
    return [f"--store: got {shown}, expected {known}"]


def _port_faults(deployment: Deployment) -> list[str]:
    taken: dict[int, str] = {}
    faults = []
    for name in ("port", "grpc_port", "control_port"):
        number = getattr(deployment, name)
        if number and number in taken:
            faults.append(f"{FLAGS[name]} {number}: is also {taken[number]}; give each its own port (0 = any free one)")
        taken.setdefault(number, FLAGS[name])
    return faults


def _webhook_faults(webhooks: Webhooks) -> list[str]:
    faults = []
    for webhook in webhooks:
        try:
            secret_of(webhook)
        except ConfigError as error:
            faults.append(str(error))
    return faults


def _tls_faults(cert: Path | None, key: Path | None) -> list[str]:
    if cert is None and key is None:
        return []
    if cert is None or key is None:
        given, missing = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        return [f"{given}: given without {missing}; TLS needs both (PEM files), plain text needs neither"]
    faults = [
        fault
        for flag, path, what in (("--tls-cert", cert, "certificate chain"), ("--tls-key", key, "private key"))
        for fault in _file_faults(flag, path, what)
    ]
    return faults or _pair_faults(cert, key)


def _file_faults(flag: str, path: Path, what: str) -> list[str]:
    if not path.exists():
        return [f"{flag} {path}: no such file; expected the {what} as PEM"]
    if not path.is_file():
        return [f"{flag} {path}: is no file; expected the {what} as PEM"]
    try:
        path.open("rb").close()
    except OSError as error:
        return [f"{flag} {path}: {str(error.strerror).lower()}; make it readable for this user"]
    return []


def _pair_faults(cert: Path, key: Path) -> list[str]:
    """What OpenSSL would refuse later, in each worker and in its own words."""
    import ssl  # only deployments with TLS pay for it

    def refuse_password() -> str:
        raise ConfigError(f"--tls-key {key}: is encrypted; decrypt it first (openssl pkey -in KEY -out PLAIN)")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except ConfigError as error:
        return [str(error)]
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return [f"--tls-key {key}: does not belong to --tls-cert {cert}; give the key it was made with"]
        return [f"--tls-cert {cert}, --tls-key {key}: not a PEM certificate and its key ({error.reason or error})"]
    return []

"""Holds a port for the workers, so that all of them can share one number, also a number that the kernel picks.

The supervisor binds with SO_REUSEPORT and never listens: connections go to the workers, which bind the same way and
do. SO_REUSEPORT alone would also join a stranger's port of the same user and steal half of its traffic, hence the
trial binds.
"""

from __future__ import annotations

import errno
import socket

from gateway.errors import ConfigError


def reserve(host: str, port: int, flag: str) -> socket.socket:
    """A bound socket that does not listen; `getsockname()[1]` is the port. ConfigError names flag, port and cure."""
    family, address = _resolve(host, port)
    try:
        reuse_address = port != 0 and not _is_free(family, address)
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if reuse_address:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
        except OSError:
            held.close()
            raise
        return held
    except OSError as error:
        raise ConfigError(_fault(error, host, port, flag)) from error


def _is_free(family: socket.AddressFamily, address: tuple[object, ...]) -> bool:
    """True: nobody has the port. False: only closed connections of an earlier server linger on it. OSError: it is in
    use.
    """
    for reuse_address in (False, True):
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            if reuse_address:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(address)
                return not reuse_address
            except OSError as error:
                if reuse_address or error.errno != errno.EADDRINUSE:
                    raise
    raise AssertionError("the second trial returns or raises")


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host}: {reason}; give an address of this machine: 127.0.0.1 (only local callers) or 0.0.0.0 (all)"
        ) from error
    return found[0][0], found[0][4]


def _fault(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{flag} {port}: in use on {host}; stop what listens there (ss -ltnp 'sport = :{port}' shows it), "
            f"or give another port (0 = any free one)"
        )
    if error.errno == errno.EACCES:
        return f"{flag} {port}: permission denied on {host}; ports below 1024 are for root: give a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: no address of this machine; use 127.0.0.1 (only local callers) or 0.0.0.0 (all)"
    return f"{flag} {port}: cannot be bound on {host}: {error.strerror}"

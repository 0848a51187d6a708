"""A PostgreSQL connection that waits for an answer, but not for ever: limits of the server do not help when it is the
server that hangs.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

from gateway.store.database import ANSWER_PATIENCE_S


class BoundedConnection(psycopg.Connection[Any]):
    patience_s = ANSWER_PATIENCE_S
    """A migration has more."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """psycopg's one place to wait in. A given timeout is the caller's own affair (`notifies`)."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience_s)
        except errors._WaitTimeout:
            self.pgconn.finish()  # its answer would be taken for the next one's
            raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s") from None

"""A store on each kind of database, empty for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.store import Store, url_of_folder
from tests.support.postgres import Postgres

Open = Callable[[], Store]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database in which nothing is yet."""
    if request.param == "sqlite":
        return url_of_folder(tmp_path / "state")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def open_store(url: str, tmp_path: Path) -> Iterator[Open]:
    """Each call opens the same store anew, as another process would."""
    stores: list[Store] = []

    def open_one() -> Store:
        stores.append(Store.open(url, tmp_path / "state"))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    return open_store()

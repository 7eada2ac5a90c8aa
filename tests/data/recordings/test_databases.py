"""The table of databases: every record is complete, has a name of its own and can be pickled."""

from __future__ import annotations

import pickle

import pytest

from phoropter.data.recordings.databases import DATABASES, MANIFEST, SIMULATIONS


@pytest.mark.parametrize("key", DATABASES)
def test_every_database_is_complete_and_travels_to_another_process(key: str) -> None:
    database = DATABASES[key]
    assert database.name == key and database.note and database.read_file is not None and database.suffix
    assert database.windows == "ctg" or database.channel or key == "monitor_csv"
    assert pickle.loads(pickle.dumps(database)) == database  # noqa: S301  our own


def test_names_are_unique() -> None:
    names = [database.name for database in (*DATABASES.values(), MANIFEST, *SIMULATIONS.values())]
    assert len(set(names)) == len(names)

"""The hub's database, version by version. The only place where tables are made.

Laws:

1. A migration that was published is never edited; a change is a new one at the end.
2. Migrating is one transaction: two processes that start together end with one schema.
"""

import sqlite3
from typing import Final

from sqlite_utils import Database, Migrations

from edge.contract.errors import UnusableError
from hub.schema import SCHEMA

APPLICATION_ID: Final = 0x57535054
migrations = Migrations("weakspot-hub")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database up to date. Raises `UnusableError` when a newer weakspot wrote it."""
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    if not migrations.pending(database) and not _unknown(database):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if unknown := _unknown(database):
            msg = f"the database was written by a newer weakspot ({', '.join(sorted(unknown))}): update this one"
            raise UnusableError(msg)
        migrations.apply(database)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _unknown(database: Database) -> set[str]:
    known = {migration.name for migration in migrations.applied(database)}
    return known - {migration.name for migration in migrations._migrations}  # noqa: SLF001  # it has no public list


@migrations(name="0001_findings")
def _findings(database: Database) -> None:
    for statement in SCHEMA.split(";\n\n"):
        database.conn.execute(statement)

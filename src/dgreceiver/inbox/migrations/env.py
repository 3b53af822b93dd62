"""Runs a migration over the connection that the inbox has opened."""

from alembic import context

from dgreceiver.inbox.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=False,  # the inbox holds the transaction
)
context.run_migrations()

"""Run by Alembic. The caller (``stores.ledger.opening``) brings connection and transaction."""

from alembic import context

from unjam.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The surrounding transaction is the caller's: all migrations or none.
    transaction_per_migration=False,
)
context.run_migrations()

"""Run by Alembic: migrates on the connection, and inside the transaction, that it is handed."""

from alembic import context  # noqa: TID253

from millpond.access.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

"""The meanings that tables, views and models have had."""

import sqlalchemy as sa  # noqa: TID253
from alembic import op  # noqa: TID253

revision = "0002"
down_revision = "0001"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "applied_definitions",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("fingerprint", sa.String(16)),
        sa.Column("meaning", sa.JSON),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("code_commit", sa.String(64)),
        sa.Column("code_dirty", sa.Boolean, nullable=False),
    )
    op.create_index("applied_definitions_of_object", "applied_definitions", ["kind", "name", "sequence"])
    if op.get_context().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER applied_definitions_refuse_{event.lower()} BEFORE {event} ON applied_definitions "
                "BEGIN SELECT RAISE(ABORT, 'what was applied stays on record'); END"
            )

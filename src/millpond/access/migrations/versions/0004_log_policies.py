"""Log policies: what the prediction log keeps of a model's answers, and since when."""

import sqlalchemy as sa  # noqa: TID253
from alembic import op  # noqa: TID253

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "log_policies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("sample", sa.Float, nullable=False),
        sa.Column("redact", sa.JSON, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
    )
    op.create_index("log_policies_of_model", "log_policies", ["model", "id"])

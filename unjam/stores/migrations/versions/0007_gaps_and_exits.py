"""Note documents whose chunks the vector store lacks, and how worker processes ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    op.create_table(
        "gaps",
        sa.Column("document_id", key, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "exits",
        sa.Column("worker", key, primary_key=True),
        sa.Column("code", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.add_column(
        "processes",
        sa.Column("rss_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    seen = sa.text("visible_generation > 0 AND shown <> 0")
    op.create_index(
        "ix_documents_seen",
        "documents",
        ["visible_pin", "id", "chunks", "visible_generation", "shown"],
        sqlite_where=seen,
        postgresql_where=seen,
    )

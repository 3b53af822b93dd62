"""The inbox as of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "dgreceiver_callback", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    op.create_table(
        "dgreceiver_body",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("coding", sa.Text()),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "dgreceiver_callback",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("weak", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("job", sa.Text()),
        sa.Column("lane", sa.Text()),
        sa.Column("n", sa.BigInteger()),
        sa.Column("stream", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due", sa.Float()),
        sa.Column("lease", sa.Text()),
        sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("marks", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("error", sa.Text()),
        sa.Column("replayed", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("stored", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("upload", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    partial("dgreceiver_attention", ["receiver", "state", "id"], "state IN ('dead', 'conflict', 'unhandled')")
    partial("dgreceiver_due", ["receiver", "due", "id"], "state = 'waiting'")
    partial("dgreceiver_expiring", ["changed"], "state IN ('done', 'unhandled', 'erased')")
    partial("dgreceiver_job", ["job"], "job IS NOT NULL")
    partial("dgreceiver_lane_order", ["lane", "n"], "lane IS NOT NULL AND state IN ('waiting', 'leased')")
    partial("dgreceiver_lane_rows", ["lane", "stream", "n"], "lane IS NOT NULL")
    partial("dgreceiver_leased", ["receiver"], "state = 'leased'")
    partial("dgreceiver_request", ["request_id"], "request_id IS NOT NULL")
    partial("dgreceiver_upload", ["upload"], "upload IS NOT NULL")
    partial("dgreceiver_weak", ["weak"], "weak IS NOT NULL")
    op.create_table(
        "dgreceiver_lane",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("lane"),
    )
    op.create_table(
        "dgreceiver_part",
        sa.Column("upload", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("stored", sa.Float(), nullable=False),
        sa.Column("coding", sa.Text()),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("upload", "n"),
    )
    op.create_table(
        "dgreceiver_stream",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("begun", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
        sa.Column("ends", sa.Float()),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("holder", sa.Text()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("told", sa.Float()),
        sa.PrimaryKeyConstraint("lane", "request_id"),
    )
    ending = sa.text("ends IS NOT NULL")
    op.create_index(
        "dgreceiver_ends", "dgreceiver_stream", ["receiver", "ends"], sqlite_where=ending, postgresql_where=ending
    )

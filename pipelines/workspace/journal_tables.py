"""The tables of the journal; SQLAlchemy Core, so that SQLite and Postgres read the same words."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 1

metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)

images = Table(
    "images",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("file", Text, nullable=False, comment="relative to the workspace"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("role", String(8), nullable=False, index=True, comment="pool or test; test is never queried"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False, comment="opening, open, closing, closed"),
    Column("champion", String(64), comment="the model that pre-annotated it"),
    Column("opened_at", String(40), nullable=False),
    Column("closed_at", String(40)),
    Column("result", JSON, comment="frozen when the round closes"),
)

# The words of a round; a table of its own, so that older journals need no change.
round_books = Table(
    "round_books",
    metadata,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("class_book", String(64), nullable=False, comment="version that it was opened with"),
)

# The primary key is the image alone: the database itself refuses to send an image twice.
tasks = Table(
    "tasks",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("round", Integer, nullable=False, index=True),
    Column("arm", String(8), nullable=False, comment="seed, ranked or random"),
    Column("rank", Integer, nullable=False),
    Column("uncertainty", Float),
    Column("version", String(160), comment="of the pre-annotations, MODEL+BOOK"),
    Column("task_id", Integer, comment="in Label Studio; null until it is known to be sent"),
)

# Append only: every state of every annotation that we saw; the latest one of an image counts.
harvests = Table(
    "harvests",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("updated_at", String(40), primary_key=True, comment="UTC, ISO 8601, microseconds: sorts as text"),
    Column("source", String(8), nullable=False, comment="studio, or import for labels that came with init"),
    Column("skipped", Boolean, nullable=False),
    Column("boxes", JSON, nullable=False, comment="[[x1, y1, x2, y2, label], ...] in pixels"),
    Column("outcomes", JSON, nullable=False),
    Column("version", String(160)),
    Column("seconds", Float),
)

# Of harvests that say more than boxes; a table of its own, so that older journals need no change.
remarks = Table(
    "remarks",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("updated_at", String(40), primary_key=True, comment="as in harvests"),
    Column("doubt", String(24), comment="unsure, needs an expert: does not count as labelled"),
    Column("note", Text, nullable=False, comment="for the domain expert"),
    Column("annotators", Integer, nullable=False, comment="0: taken back"),
    Column("agreement", Float),
)

steps = Table(
    "steps",
    metadata,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("step", String(24), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("finished_at", String(40)),
    Column("detail", JSON),
)

# Append only: the latest row of an alias is what it points to, the rows before are its history.
aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alias", String(24), nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("action", String(12), nullable=False, comment="promote or rollback"),
    Column("reason", Text, nullable=False),
    Column("at", String(40), nullable=False),
)

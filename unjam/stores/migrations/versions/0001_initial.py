"""The ledger as it first was. Frozen: later changes are further revisions."""

from alembic import op

revision = "0001"
down_revision = None

STATES = (
    "received queued parsing chunking embedding storing searchable waiting dead cancelled deleted"
)

SQLITE = (
    """CREATE TABLE acceptances (
    document_id TEXT NOT NULL,
    at DOUBLE NOT NULL,
    PRIMARY KEY (document_id)
)""",
    """CREATE TABLE blobs (
    content_hash TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    unreferenced_since DOUBLE,
    PRIMARY KEY (content_hash)
)""",
    """CREATE INDEX ix_blobs_unreferenced ON blobs (unreferenced_since) WHERE unreferenced_since IS NOT NULL""",
    """CREATE TABLE cleanups (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    document_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    collection TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    due_at DOUBLE NOT NULL
)""",
    """CREATE INDEX ix_cleanups_due_at ON cleanups (due_at)""",
    """CREATE TABLE counters (
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    value DOUBLE NOT NULL,
    PRIMARY KEY (name, queue)
)""",
    """CREATE TABLE documents (
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    shown INTEGER DEFAULT 1 NOT NULL,
    filename TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    content_hash TEXT NOT NULL,
    pin_id TEXT NOT NULL,
    home_lane TEXT NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    created_at DOUBLE NOT NULL,
    state TEXT NOT NULL,
    generation BIGINT DEFAULT 0 NOT NULL,
    visible_generation BIGINT DEFAULT 0 NOT NULL,
    visible_hash TEXT DEFAULT '' NOT NULL,
    visible_pin TEXT DEFAULT '' NOT NULL,
    chunks BIGINT DEFAULT 0 NOT NULL,
    lane TEXT NOT NULL,
    enqueue_seq BIGINT DEFAULT 0 NOT NULL,
    token BIGINT DEFAULT 0 NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    next_step_at DOUBLE,
    progress_done BIGINT DEFAULT 0 NOT NULL,
    progress_total BIGINT DEFAULT 0 NOT NULL,
    errors BIGINT DEFAULT 0 NOT NULL,
    deaths BIGINT DEFAULT 0 NOT NULL,
    throttles BIGINT DEFAULT 0 NOT NULL,
    suspect BIGINT DEFAULT 0 NOT NULL,
    alone BIGINT DEFAULT 0 NOT NULL,
    death_done BIGINT DEFAULT 0 NOT NULL,
    death_step BIGINT DEFAULT 0 NOT NULL,
    worker TEXT DEFAULT '' NOT NULL,
    lease_until DOUBLE,
    claimed_at DOUBLE,
    started_generation BIGINT DEFAULT 0 NOT NULL,
    updated_at DOUBLE NOT NULL,
    searchable_at DOUBLE,
    slo_since DOUBLE,
    PRIMARY KEY (id)
)""",
    """CREATE INDEX ix_documents_content ON documents (content_hash)""",
    """CREATE INDEX ix_documents_leased ON documents (lease_until) WHERE worker <> ''""",
    """CREATE INDEX ix_documents_shown ON documents (shown, id)""",
    """CREATE INDEX ix_documents_slo ON documents (slo_since) WHERE slo_since IS NOT NULL""",
    """CREATE INDEX ix_documents_state ON documents (state, id)""",
    """CREATE INDEX ix_documents_user ON documents (user_id, shown, id)""",
    """CREATE INDEX ix_documents_user_content ON documents (user_id, content_hash)""",
    """CREATE INDEX ix_documents_user_state ON documents (user_id, state, id)""",
    """CREATE INDEX ix_documents_visible_hash ON documents (visible_hash) WHERE visible_hash <> ''""",
    """CREATE INDEX ix_documents_visible_pin ON documents (visible_pin, state) WHERE visible_pin <> ''""",
    """CREATE INDEX ix_documents_waiting ON documents (next_step_at) WHERE next_step_at IS NOT NULL""",
    """CREATE INDEX ix_documents_worker ON documents (worker) WHERE worker <> ''""",
    """CREATE TABLE events (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    document_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    at DOUBLE NOT NULL,
    kind TEXT NOT NULL,
    data TEXT DEFAULT '{}' NOT NULL
)""",
    """CREATE INDEX ix_events_document ON events (document_id, seq)""",
    """CREATE TABLE idempotency (
    user_id TEXT NOT NULL,
    "key" TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    document_id TEXT NOT NULL,
    at DOUBLE NOT NULL,
    PRIMARY KEY (user_id, "key")
)""",
    """CREATE TABLE knobs (
    name TEXT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name)
)""",
    """CREATE TABLE leaders (
    role TEXT NOT NULL,
    holder TEXT NOT NULL,
    until DOUBLE NOT NULL,
    PRIMARY KEY (role)
)""",
    """CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY ("key")
)""",
    """CREATE TABLE pins (
    id TEXT NOT NULL,
    fingerprint_id TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (id)
)""",
    """CREATE TABLE processes (
    id TEXT NOT NULL,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    seen DOUBLE NOT NULL,
    PRIMARY KEY (id)
)""",
    """CREATE TABLE tallies (
    name TEXT NOT NULL,
    visible INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    n BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (name, visible, shard)
)""",
    """CREATE TABLE generations (
    document_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    content_hash TEXT NOT NULL,
    pin_id TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    chunks BIGINT,
    created_at DOUBLE NOT NULL,
    visible_at DOUBLE,
    PRIMARY KEY (document_id, generation),
    FOREIGN KEY(document_id) REFERENCES documents (id)
)""",
    """CREATE TABLE names (
    document_id TEXT NOT NULL,
    filename TEXT NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    at DOUBLE NOT NULL,
    PRIMARY KEY (document_id, filename),
    FOREIGN KEY(document_id) REFERENCES documents (id)
)""",
    """CREATE TRIGGER documents_tally_insert AFTER INSERT ON documents BEGIN
  UPDATE tallies SET n = n + 1
    WHERE name = NEW.state AND visible = (NEW.visible_generation > 0) AND shard = 0;
END""",
    """CREATE TRIGGER documents_tally_delete AFTER DELETE ON documents BEGIN
  UPDATE tallies SET n = n - 1
    WHERE name = OLD.state AND visible = (OLD.visible_generation > 0) AND shard = 0;
END""",
    """CREATE TRIGGER documents_tally_update AFTER UPDATE OF state, visible_generation ON documents
  WHEN OLD.state <> NEW.state
    OR (OLD.visible_generation > 0) <> (NEW.visible_generation > 0) BEGIN
  UPDATE tallies SET n = n - 1
    WHERE name = OLD.state AND visible = (OLD.visible_generation > 0) AND shard = 0;
  UPDATE tallies SET n = n + 1
    WHERE name = NEW.state AND visible = (NEW.visible_generation > 0) AND shard = 0;
END""",
    """CREATE TRIGGER acceptances_tally AFTER INSERT ON acceptances BEGIN
  UPDATE tallies SET n = n + 1 WHERE name = 'accepted' AND visible = 0 AND shard = 0;
END""",
)

POSTGRESQL = (
    """CREATE TABLE acceptances (
    document_id TEXT COLLATE "C" NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (document_id)
)""",
    """CREATE TABLE blobs (
    content_hash TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    unreferenced_since DOUBLE PRECISION,
    PRIMARY KEY (content_hash)
)""",
    """CREATE INDEX ix_blobs_unreferenced ON blobs (unreferenced_since) WHERE unreferenced_since IS NOT NULL""",
    """CREATE TABLE cleanups (
    id BIGSERIAL NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    collection TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    due_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id)
)""",
    """CREATE INDEX ix_cleanups_due_at ON cleanups (due_at)""",
    """CREATE TABLE counters (
    name TEXT COLLATE "C" NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name, queue)
)""",
    """CREATE TABLE documents (
    id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    shown INTEGER DEFAULT 1 NOT NULL,
    filename TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    content_hash TEXT COLLATE "C" NOT NULL,
    pin_id TEXT COLLATE "C" NOT NULL,
    home_lane TEXT NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    generation BIGINT DEFAULT 0 NOT NULL,
    visible_generation BIGINT DEFAULT 0 NOT NULL,
    visible_hash TEXT DEFAULT '' NOT NULL,
    visible_pin TEXT COLLATE "C" DEFAULT '' NOT NULL,
    chunks BIGINT DEFAULT 0 NOT NULL,
    lane TEXT NOT NULL,
    enqueue_seq BIGINT DEFAULT 0 NOT NULL,
    token BIGINT DEFAULT 0 NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '' NOT NULL,
    next_step_at DOUBLE PRECISION,
    progress_done BIGINT DEFAULT 0 NOT NULL,
    progress_total BIGINT DEFAULT 0 NOT NULL,
    errors BIGINT DEFAULT 0 NOT NULL,
    deaths BIGINT DEFAULT 0 NOT NULL,
    throttles BIGINT DEFAULT 0 NOT NULL,
    suspect BIGINT DEFAULT 0 NOT NULL,
    alone BIGINT DEFAULT 0 NOT NULL,
    death_done BIGINT DEFAULT 0 NOT NULL,
    death_step BIGINT DEFAULT 0 NOT NULL,
    worker TEXT COLLATE "C" DEFAULT '' NOT NULL,
    lease_until DOUBLE PRECISION,
    claimed_at DOUBLE PRECISION,
    started_generation BIGINT DEFAULT 0 NOT NULL,
    updated_at DOUBLE PRECISION NOT NULL,
    searchable_at DOUBLE PRECISION,
    slo_since DOUBLE PRECISION,
    PRIMARY KEY (id)
)""",
    """CREATE INDEX ix_documents_content ON documents (content_hash)""",
    """CREATE INDEX ix_documents_leased ON documents (lease_until) WHERE worker <> ''""",
    """CREATE INDEX ix_documents_shown ON documents (shown, id)""",
    """CREATE INDEX ix_documents_slo ON documents (slo_since) WHERE slo_since IS NOT NULL""",
    """CREATE INDEX ix_documents_state ON documents (state, id)""",
    """CREATE INDEX ix_documents_user ON documents (user_id, shown, id)""",
    """CREATE INDEX ix_documents_user_content ON documents (user_id, content_hash)""",
    """CREATE INDEX ix_documents_user_state ON documents (user_id, state, id)""",
    """CREATE INDEX ix_documents_visible_hash ON documents (visible_hash) WHERE visible_hash <> ''""",
    """CREATE INDEX ix_documents_visible_pin ON documents (visible_pin, state) WHERE visible_pin <> ''""",
    """CREATE INDEX ix_documents_waiting ON documents (next_step_at) WHERE next_step_at IS NOT NULL""",
    """CREATE INDEX ix_documents_worker ON documents (worker) WHERE worker <> ''""",
    """CREATE TABLE events (
    seq BIGSERIAL NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    data TEXT DEFAULT '{}' NOT NULL,
    PRIMARY KEY (seq)
)""",
    """CREATE INDEX ix_events_document ON events (document_id, seq)""",
    """CREATE TABLE idempotency (
    user_id TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    content_hash TEXT COLLATE "C" NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (user_id, key)
)""",
    """CREATE TABLE knobs (
    name TEXT COLLATE "C" NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (name)
)""",
    """CREATE TABLE leaders (
    role TEXT COLLATE "C" NOT NULL,
    holder TEXT NOT NULL,
    until DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (role)
)""",
    """CREATE TABLE meta (
    key TEXT COLLATE "C" NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (key)
)""",
    """CREATE TABLE pins (
    id TEXT COLLATE "C" NOT NULL,
    fingerprint_id TEXT COLLATE "C" NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (id)
)""",
    """CREATE TABLE processes (
    id TEXT COLLATE "C" NOT NULL,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    seen DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id)
)""",
    """CREATE TABLE tallies (
    name TEXT COLLATE "C" NOT NULL,
    visible INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    n BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (name, visible, shard)
)""",
    """CREATE TABLE generations (
    document_id TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    content_hash TEXT COLLATE "C" NOT NULL,
    pin_id TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    media_type TEXT NOT NULL,
    chunks BIGINT,
    created_at DOUBLE PRECISION NOT NULL,
    visible_at DOUBLE PRECISION,
    PRIMARY KEY (document_id, generation),
    FOREIGN KEY(document_id) REFERENCES documents (id)
)""",
    """CREATE TABLE names (
    document_id TEXT COLLATE "C" NOT NULL,
    filename TEXT COLLATE "C" NOT NULL,
    metadata TEXT DEFAULT '{}' NOT NULL,
    at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (document_id, filename),
    FOREIGN KEY(document_id) REFERENCES documents (id)
)""",
    """CREATE FUNCTION unjam_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    UPDATE tallies SET n = n - 1 WHERE name = OLD.state
      AND visible = (OLD.visible_generation > 0)::int AND shard = mod(pg_backend_pid(), 16);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    UPDATE tallies SET n = n + 1 WHERE name = NEW.state
      AND visible = (NEW.visible_generation > 0)::int AND shard = mod(pg_backend_pid(), 16);
  END IF;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION unjam_tally_accepted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE tallies SET n = n + 1 WHERE name = 'accepted' AND visible = 0
    AND shard = mod(pg_backend_pid(), 16);
  RETURN NULL;
END $$""",
    """CREATE TRIGGER documents_tally_other AFTER INSERT OR DELETE ON documents
  FOR EACH ROW EXECUTE FUNCTION unjam_tally()""",
    """CREATE TRIGGER documents_tally_update AFTER UPDATE ON documents FOR EACH ROW
  WHEN (OLD.state <> NEW.state
    OR (OLD.visible_generation > 0) <> (NEW.visible_generation > 0))
  EXECUTE FUNCTION unjam_tally()""",
    """CREATE TRIGGER acceptances_tally AFTER INSERT ON acceptances
  FOR EACH ROW EXECUTE FUNCTION unjam_tally_accepted()""",
)


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE if sqlite else POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)
    for name in [*STATES.split(), "accepted"]:
        for visible in (0, 1):
            for shard in range(1 if sqlite else 16):
                op.execute(f"INSERT INTO tallies VALUES ('{name}', {visible}, {shard}, 0)")

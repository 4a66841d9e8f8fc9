"""Count dead letters by reason as they come and go, and index them."""

from alembic import op

revision = "0003"
down_revision = "0002"

ADD = """  INSERT INTO tallies (name, visible, shard, n)
    VALUES ('dead:' || {row}.reason, 0, {shard}, {n})
    ON CONFLICT (name, visible, shard) DO UPDATE SET n = tallies.n + ({n});"""


def sqlite(name: str, event: str, when: str, row: str, n: int) -> str:
    body = ADD.format(row=row, shard=0, n=n)
    return f"CREATE TRIGGER {name} AFTER {event} ON documents WHEN {when} BEGIN\n{body}\nEND"


DIED = "NEW.state = 'dead' AND (OLD.state <> 'dead' OR OLD.reason <> NEW.reason)"
ROSE = "OLD.state = 'dead' AND (NEW.state <> 'dead' OR OLD.reason <> NEW.reason)"
SQLITE = (
    sqlite("dead_tally_insert", "INSERT", "NEW.state = 'dead'", "NEW", 1),
    sqlite("dead_tally_delete", "DELETE", "OLD.state = 'dead'", "OLD", -1),
    sqlite("dead_tally_died", "UPDATE OF state, reason", DIED, "NEW", 1),
    sqlite("dead_tally_rose", "UPDATE OF state, reason", ROSE, "OLD", -1),
)
SHARD = "mod(pg_backend_pid(), 16)"
POSTGRES = (
    f"""CREATE FUNCTION unjam_tally_dead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.state = 'dead' THEN
  {ADD.format(row="OLD", shard=SHARD, n=-1)}
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.state = 'dead' THEN
  {ADD.format(row="NEW", shard=SHARD, n=1)}
  END IF;
  RETURN NULL;
END $$""",
    """CREATE TRIGGER documents_tally_dead AFTER INSERT ON documents FOR EACH ROW
  WHEN (NEW.state = 'dead') EXECUTE FUNCTION unjam_tally_dead()""",
    """CREATE TRIGGER documents_tally_undead AFTER DELETE ON documents FOR EACH ROW
  WHEN (OLD.state = 'dead') EXECUTE FUNCTION unjam_tally_dead()""",
    """CREATE TRIGGER documents_tally_dead_update AFTER UPDATE ON documents FOR EACH ROW
  WHEN ((OLD.state = 'dead' OR NEW.state = 'dead')
    AND (OLD.state <> NEW.state OR OLD.reason <> NEW.reason))
  EXECUTE FUNCTION unjam_tally_dead()""",
)


def upgrade() -> None:
    on_postgres = op.get_bind().dialect.name == "postgresql"
    op.execute("CREATE INDEX ix_documents_dead ON documents (reason, id) WHERE state = 'dead'")
    op.execute(
        "INSERT INTO tallies (name, visible, shard, n) SELECT 'dead:' || reason, 0, 0, count(*)"
        " FROM documents WHERE state = 'dead' GROUP BY reason"
    )
    for statement in POSTGRES if on_postgres else SQLITE:
        op.get_bind().exec_driver_sql(statement)

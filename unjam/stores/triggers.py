"""The tallies: counts of documents by state, and of dead letters by reason, kept by triggers.

A change here needs a migration, as one of ``schema`` does.
"""

from __future__ import annotations

from unjam.core.document import State

SHARDS = 16
"""PostgreSQL spreads the tallies over this many rows, by backend, so that none becomes hot."""

DEAD_TALLY = "dead:"
"""Prefix of the tallies of dead letters by reason; they come into being with their first one."""

_ADD_DEAD = """  INSERT INTO tallies (name, visible, shard, n)
    VALUES ('dead:' || {row}.reason, 0, {shard}, {n})
    ON CONFLICT (name, visible, shard) DO UPDATE SET n = tallies.n + ({n});"""


def _sqlite_dead(name: str, event: str, when: str, row: str, n: int) -> str:
    body = _ADD_DEAD.format(row=row, shard=0, n=n)
    return f"CREATE TRIGGER {name} AFTER {event} ON documents WHEN {when} BEGIN\n{body}\nEND"


_DIED = "NEW.state = 'dead' AND (OLD.state <> 'dead' OR OLD.reason <> NEW.reason)"
_ROSE = "OLD.state = 'dead' AND (NEW.state <> 'dead' OR OLD.reason <> NEW.reason)"
DEAD_TALLY_SQLITE = (
    _sqlite_dead("dead_tally_insert", "INSERT", "NEW.state = 'dead'", "NEW", 1),
    _sqlite_dead("dead_tally_delete", "DELETE", "OLD.state = 'dead'", "OLD", -1),
    _sqlite_dead("dead_tally_died", "UPDATE OF state, reason", _DIED, "NEW", 1),
    _sqlite_dead("dead_tally_rose", "UPDATE OF state, reason", _ROSE, "OLD", -1),
)
_SHARD = f"mod(pg_backend_pid(), {SHARDS})"
DEAD_TALLY_POSTGRES = (
    f"""CREATE FUNCTION unjam_tally_dead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.state = 'dead' THEN
  {_ADD_DEAD.format(row="OLD", shard=_SHARD, n=-1)}
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.state = 'dead' THEN
  {_ADD_DEAD.format(row="NEW", shard=_SHARD, n=1)}
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

_SQLITE_TRIGGERS = (
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
    *DEAD_TALLY_SQLITE,
)

_POSTGRES_TRIGGERS = (
    f"""CREATE FUNCTION unjam_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    UPDATE tallies SET n = n - 1 WHERE name = OLD.state
      AND visible = (OLD.visible_generation > 0)::int AND shard = mod(pg_backend_pid(), {SHARDS});
  END IF;
  IF TG_OP <> 'DELETE' THEN
    UPDATE tallies SET n = n + 1 WHERE name = NEW.state
      AND visible = (NEW.visible_generation > 0)::int AND shard = mod(pg_backend_pid(), {SHARDS});
  END IF;
  RETURN NULL;
END $$""",
    f"""CREATE FUNCTION unjam_tally_accepted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE tallies SET n = n + 1 WHERE name = 'accepted' AND visible = 0
    AND shard = mod(pg_backend_pid(), {SHARDS});
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
    *DEAD_TALLY_POSTGRES,
)


def triggers(dialect: str) -> tuple[str, ...]:
    return _SQLITE_TRIGGERS if dialect == "sqlite" else _POSTGRES_TRIGGERS


def tally_rows(dialect: str) -> list[dict[str, str | int]]:
    """Every row the triggers may touch, at zero."""
    shards = range(1 if dialect == "sqlite" else SHARDS)
    states = [*(s.value for s in State), "accepted"]
    return [
        {"name": name, "visible": visible, "shard": shard, "n": 0}
        for name in states
        for visible in (0, 1)
        for shard in shards
    ]

"""The ledger: every document's state, attempts and counters, in SQLite or PostgreSQL."""

from unjam.stores.ledger.facade import SqlLedger

__all__ = ["SqlLedger"]

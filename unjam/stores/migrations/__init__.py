"""Alembic migrations of the ledger; a fresh one is made from ``stores.schema`` directly."""

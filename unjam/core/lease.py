"""The numbers of a lease (law 3)."""

from __future__ import annotations

LEASE_S = 10.0
"""A claim is valid this long after its last renewal."""

RENEW_S = 2.0
"""All leases of a process are renewed together this often: four may fail before one is lost."""

UPSERT_TIMEOUT_S = 30.0
"""A vector store call ends or is given up after this long, so a zombie's last one lands by then."""

CLEANUP_AGAIN_S = LEASE_S + UPSERT_TIMEOUT_S
"""Old chunks are deleted at the flip and once more after this long (law 5)."""

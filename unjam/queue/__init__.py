"""The doorbell: RQ's lanes in Redis. The ledger is the truth; losing all of this costs seconds."""

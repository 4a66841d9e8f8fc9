"""Search: over what is visible, and nothing else."""

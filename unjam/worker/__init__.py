"""What runs: workers, the supervisor and the servers that it embeds."""

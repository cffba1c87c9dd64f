"""Child processes: how they start, run isolated and end."""

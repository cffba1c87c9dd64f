"""Processes of ours: how they start, work apart and end."""

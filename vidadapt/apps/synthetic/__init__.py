"""The renderer of the demonstration videos."""

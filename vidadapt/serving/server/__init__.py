"""Adapters as a web service: uploads and paths in, labels out, several requests in one pass."""

"""Exact frames from video files."""

"""A file becomes exact frames."""

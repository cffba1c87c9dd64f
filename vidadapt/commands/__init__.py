"""The commands, a module each: `parse` reads the options, `main` does the work, `run` starts it."""

"""Output for people: printable names and progress."""

"""Lists of videos, and what is known of each file."""

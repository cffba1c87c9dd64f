"""Files: locks, writing them whole, retrying reads, and untrusted archives."""

"""What is said to people: printable names and progress."""

"""A trained run or adapter as a thing to use."""

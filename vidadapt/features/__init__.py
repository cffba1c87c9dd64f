"""A model in two: the features of its frozen half, kept and read again."""

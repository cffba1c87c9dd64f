"""Cut a model in two, keep the features of its frozen half, and read them again."""

"""Methods x frames x seeds: a benchmark whose cells are ordinary runs."""

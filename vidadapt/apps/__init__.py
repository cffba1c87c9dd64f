"""Applications on the library. `report` serves the others, and `synthetic` serves `prepare`."""

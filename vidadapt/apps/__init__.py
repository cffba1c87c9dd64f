"""Applications: each uses the library, and none but `report` is used by another."""

"""Files: who may write to them, how they are written whole, and archives from strangers."""

"""Files that several processes share: who may write to them."""

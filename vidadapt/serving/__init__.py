"""Use of a trained run or adapter."""

"""What a model is worth: views, scores and metrics."""

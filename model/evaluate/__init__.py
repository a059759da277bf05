"""What a metric is worth: natural and certified scores, side by side."""

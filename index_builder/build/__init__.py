"""From pictures to a sealed version."""

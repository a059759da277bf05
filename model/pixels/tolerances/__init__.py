"""What a radius means in edits that people know: how bright, how compressed, how small."""

"""Networks to learn from or to compare with, behind one small interface; their stored targets."""

"""The workshop that makes checkpoints; nobody outside it imports it."""

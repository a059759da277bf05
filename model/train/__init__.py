"""The workshop that makes checkpoints; nobody outside it imports it.

Files that handle tensors are `pyright: basic`: torch's types are loose.
"""

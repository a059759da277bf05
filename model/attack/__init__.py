"""Attacks on metrics: small changes of a picture that turn a decision, held against the proof."""

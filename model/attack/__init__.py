"""Attacks on metrics: small changes of a picture that flip a decision, held against the proof."""

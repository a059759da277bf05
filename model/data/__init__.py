"""What training, evaluation and calibration read: pictures, shards, triplets, edits."""

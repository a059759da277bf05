"""What training, evaluation and calibration read: pictures, triplets, edits."""

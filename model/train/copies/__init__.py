"""The default model: a wavelet network whose head keeps copies near and other pictures far."""

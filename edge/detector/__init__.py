"""Run a detector: the same code on the camera's device and on the hub."""

"""How good a model is, measured through the very detector that runs on the devices."""

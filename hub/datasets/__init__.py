"""Dataset versions: what a model was trained and tested on, frozen."""

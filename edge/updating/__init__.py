"""Over the air: fetch a signed release, judge it beside the old model, serve it, or go back."""

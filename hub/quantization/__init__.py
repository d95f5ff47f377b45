"""Smaller numbers for a model, where they cost little and bring speed."""

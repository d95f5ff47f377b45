"""8-bit variants of a released model: made, searched for what must stay in float, judged, and listed in its card."""

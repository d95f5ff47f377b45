"""What crosses the wire between a device and the hub. Standard library and msgspec only."""

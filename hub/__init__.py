"""The engineer's side of weakspot: ingest findings, remove near-duplicates, freeze batches, export."""

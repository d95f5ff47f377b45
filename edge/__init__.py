"""The device side of weakspot: detect, mine, spool and publish.

`edge.contract` and `edge.detector` are public; the hub imports nothing else from here.
"""

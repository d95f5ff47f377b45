"""Is this frame the JPEG that its finding announced? What a safe JPEG is says edge.contract.jpeg."""

import hashlib

from edge.contract.errors import UntrustedError
from edge.contract.jpeg import jpeg_size


def require_jpeg(jpeg: bytes, *, width: int, height: int, sha256: bytes) -> None:
    """Check a frame against what its finding announced. Raises `UnusableError` or `UntrustedError`."""
    size = jpeg_size(jpeg)
    if size != (width, height):
        msg = f"the JPEG has {size[0]}x{size[1]} pixels, the finding says {width}x{height}"
        raise UntrustedError(msg)
    if hashlib.sha256(jpeg).digest() != sha256:
        msg = "the JPEG's SHA-256 is not the one the finding says"
        raise UntrustedError(msg)

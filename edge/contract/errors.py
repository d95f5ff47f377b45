"""The causes of failure that a person can act on. A command prints the message as one line and exits 2."""


class WeakspotError(Exception):
    """Something could not be done; the message says what and what to do about it."""


class UnusableError(WeakspotError):
    """A file, a model, a configuration or a message that cannot be used as it is."""


class UnreachableError(WeakspotError):
    """A camera, a broker or a path that does not answer."""


class UntrustedError(WeakspotError):
    """A message or a file that claims something it has no right to."""

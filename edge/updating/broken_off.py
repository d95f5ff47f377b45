"""Why a turn of the updater is broken off: nothing of it is an error of the release."""


class StoppedError(Exception):
    """The daemon stops: nothing more is written."""


class NewerError(Exception):
    """Another assignment waits, or a person."""


class UnwrittenError(Exception):
    """The disk does not take a state: it is not the device's."""

"""What a CVAT server, and the line to it, say when something fails: one sentence each, and what to do about it.

No secret and no header of an answer is in it; of what the server says, one line.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.samples import plain_text

_MAX_WORDS: Final = 300


@contextmanager
def in_words(url: str, doing: str, *, version: str = "") -> Iterator[None]:
    """Raise what the sdk raises as `UnreachableError` where nobody answered, else as `UnusableError`.

    Args:
        url: the server's.
        doing: what was tried, as in "making the task".
        version: of the server, where it is known.
    """
    from cvat_sdk.api_client.exceptions import ApiException, OpenApiException
    from cvat_sdk.core.exceptions import CvatSdkException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        msg = f"{url}: {doing} failed: {_refusal(error)}"
        raise UnusableError(msg) from error
    except CvatSdkException as error:
        msg = f"{url}: {doing} failed: {_last_line(str(error))}"
        raise UnusableError(msg) from error
    except HTTPError as error:
        msg = f"{url}: {doing} failed: {_broken(error)}"
        raise UnreachableError(msg) from error
    except (OpenApiException, msgspec.MsgspecError, AssertionError, KeyError, ValueError) as error:
        is_it = f"CVAT {version}: another version of cvat-sdk may understand it" if version else "this a CVAT server"
        msg = f"{url}: {doing} failed: its answer is not understood ({_last_line(str(error))}); is {is_it}?"
        raise UnusableError(msg) from error
    except OSError as error:
        msg = f"{url}: {doing} failed: {error}"
        raise UnusableError(msg) from error


def _refusal(error: Any) -> str:
    words = _words(error.body) or str(error.reason or "")
    match error.status:
        case 401:
            return "the token or the password is not accepted: see `token_file`, or `password_file`, in [cvat]"
        case 403:
            return f"no permission, or a limit of the account: {words}"
        case 404:
            return f"it is not there, or not for this account and organization: {words}"
        case 413:
            return "too large for the server, or for the proxy before it"
        case int(status) if status >= 500:
            return f"the server has an error ({status}): {words}"
        case status:
            return f"refused ({status}): {words}"


def _words(body: bytes | str | None) -> str:
    """Return what the server says of a refusal; empty where that is a page for people."""
    try:
        said = json.loads(body or "")
    except ValueError:
        return ""
    parts: list[object] = [said]
    found = []
    while parts:
        part = parts.pop(0)
        if isinstance(part, dict):
            parts = [*part.values(), *parts]
        elif isinstance(part, list):
            parts = [*part, *parts]
        else:
            found.append(str(part))
    return _last_line(" ".join(found))


def _last_line(text: str) -> str:
    """Return the last line with anything in it: of a traceback, what went wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    return plain_text(lines[-1], most=_MAX_WORDS) if lines else "no reason given"


def _broken(error: Exception) -> str:
    from urllib3 import exceptions

    reason = getattr(error, "reason", None) or error
    match reason:
        case exceptions.SSLError():
            return f"its certificate is not trusted ({_last_line(str(reason))}); `ca` in [cvat] names its authority"
        case exceptions.TimeoutError() if not isinstance(reason, exceptions.NewConnectionError):
            return "no answer in time (`cvat.timeout_s`)"
        case exceptions.NewConnectionError():
            return f"it cannot be reached: {_last_line(str(reason)).rpartition(': ')[2]}"
        case exceptions.ProtocolError() if len(reason.args) > 1:
            return f"the connection broke: {_last_line(str(reason.args[1]))}"
        case _:
            return f"the connection broke: {_last_line(str(reason))}"

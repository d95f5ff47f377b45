"""How both sides read their configuration: a TOML file becomes one frozen value.

Laws:

1. A key that is not known is an error that names the nearest key that is.
2. Every `Path` in the returned value is absolute; a relative one is taken from the folder of the file.
"""

import difflib
import tomllib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from edge.contract.errors import UnusableError

_T = TypeVar("_T", bound=msgspec.Struct)


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the broker. MQTT version 5 only.

    Attributes:
        host: name or address of the broker.
        port: 1883 without TLS and 8883 with it, unless given.
        username: sent only when given.
        password_file: file whose first line is the password.
        ca: PEM file of the authority that signed the broker's certificate; given, the connection is TLS.
        cert: PEM file of this side's certificate.
        key: PEM file of this side's private key.
        keepalive_s: the broker declares this side lost after one and a half of these.
    """

    host: str = "localhost"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    username: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f]{1,256}\Z")] | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30

    @property
    def port_number(self) -> int:
        """The port, given or usual."""
        return self.port or (8883 if self.ca else 1883)

    def require_sense(self) -> None:
        """Raise `UnusableError` when the host is no name, or when keys that need each other are not all given."""
        if not _may_be_a_host(self.host):
            msg = f"`mqtt.host` is {self.host!r}, expected a name or an address"
            raise UnusableError(msg)
        if self.password_file is not None and self.username is None:
            msg = "`mqtt.password_file` needs `mqtt.username`"
            raise UnusableError(msg)
        if (self.cert is None) != (self.key is None):
            msg = "`mqtt.cert` and `mqtt.key` are given together or not at all"
            raise UnusableError(msg)
        if self.cert is not None and self.ca is None:
            msg = "`mqtt.cert` needs `mqtt.ca`, the authority that signed the broker's certificate"
            raise UnusableError(msg)


def _may_be_a_host(text: str) -> bool:
    """Whether a resolver could take it: parts of 1 to 63 characters, no spaces. An address is one too."""
    if not text.isprintable() or " " in text:
        return False
    try:
        return 1 <= len(text.encode("idna")) <= 253
    except UnicodeError:
        return False


def read_settings(path: Path, parse: Callable[[str, Path], _T]) -> _T:
    """Read a file and give its text and its folder to `parse`. Raises `UnusableError` with the file's name in front."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 text"
        raise UnusableError(msg) from error
    try:
        return parse(text, path.absolute().parent)
    except UnusableError as error:
        msg = f"{path}: {error}"
        raise UnusableError(msg) from error


def parse_settings(text: str, kind: type[_T], *, folder: Path) -> _T:
    """Return what is written in `text`. Raises `UnusableError`. The file system is not touched."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"not valid TOML: {error}"
        raise UnusableError(msg) from error
    _require_known(table, kind, "")
    try:
        settings = msgspec.convert(table, kind, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise UnusableError(plain_error(error)) from error
    resolved: _T = _resolve(settings, folder)
    return resolved


def _require_known(table: dict[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    fields = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(fields)}"
            msg = f"unknown key `{where}{key}`{hint}"
            raise UnusableError(msg)
        below = _struct_of(fields[key])
        named = typing.get_origin(fields[key]) is dict and isinstance(value, dict)
        parts = value.items() if named else ((None, one) for one in (value if isinstance(value, list) else [value]))
        for name, part in parts:
            if below is not None and isinstance(part, dict):
                _require_known(part, below, f"{where}{key}.{name}." if named else f"{where}{key}.")


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, msgspec.Struct):
            return kind
    return None


def _decode_path(kind: type, value: object) -> object:
    if kind is not Path or not isinstance(value, str) or not value or "\x00" in value:
        msg = f"expected a path, got {value!r}"
        raise ValueError(msg)
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        msg = f"expected a path, got {value!r}, which names no user's home"
        raise ValueError(msg) from error


def plain_error(error: msgspec.ValidationError) -> str:
    """Return what msgspec says, with the key in front."""
    text, _, where = str(error).partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    return f"`{key}`: {text[0].lower()}{text[1:]}" if key else f"{text[0].lower()}{text[1:]}"


def _resolve(value: Any, folder: Path) -> Any:
    """Return the value with every path in it made absolute."""
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, tuple):
        return tuple(_resolve(one, folder) for one in value)
    if isinstance(value, msgspec.Struct):
        changes = {name: _resolve(getattr(value, name), folder) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **changes)
    return value

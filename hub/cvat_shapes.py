"""What a CVAT server answers, as much of it as is used. Other fields of an answer are passed over."""

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """One frame as the server numbers it, with its size in pixels."""

    name: str
    width: int
    height: int


class Frames(msgspec.Struct, frozen=True):
    """The frames of a task, by number, and the JPEG quality at which annotators see them."""

    frames: tuple[Frame, ...]
    image_quality: int


class User(msgspec.Struct, frozen=True):
    """Someone with an account."""

    id: int
    username: str


class Task(msgspec.Struct, frozen=True):
    """A task of the server."""

    id: int
    name: str
    assignee: User | None = None


class Job(msgspec.Struct, frozen=True):
    """A part of a task. `type` is `annotation`, or one that people do not answer a batch with.

    `state` is `new`, `in progress`, `completed` or `rejected`; the frames are those from `start_frame` to `stop_frame`.
    """

    id: int
    type: str
    state: str
    start_frame: int
    stop_frame: int
    assignee: User | None = None


class Attribute(msgspec.Struct, frozen=True):
    """An attribute that a label declares."""

    name: str


class Label(msgspec.Struct, frozen=True):
    """A label of a task or project."""

    id: int
    name: str
    attributes: tuple[Attribute, ...] = ()


class Shape(msgspec.Struct, frozen=True):
    """Something drawn, without its points."""

    frame: int
    label_id: int


class Annotations(msgspec.Struct, frozen=True):
    """What is drawn in a task."""

    shapes: tuple[Shape, ...] = ()


class Users(msgspec.Struct, frozen=True):
    """One page of users."""

    results: tuple[User, ...]

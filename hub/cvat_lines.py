"""What `hub cvat` says, as lines."""

import msgspec

from hub.cvat_pull import Pulled
from hub.cvat_push import Pushed
from hub.import_lines import imported_lines


def pushed_lines(pushed: Pushed) -> list[str]:
    """Return what a push has done, and what comes next."""
    of_pass = f", {pushed.label_pass} only" if pushed.label_pass else ""
    options = f" --pass {pushed.label_pass}" if pushed.label_pass else ""
    lines = list(pushed.notes)
    if pushed.made:
        lines.append(
            f"batch {pushed.batch_id}{of_pass}: {pushed.images} images ({pushed.test} of the test share),"
            f" {pushed.boxes} boxes proposed"
        )
    else:
        lines.append(f"batch {pushed.batch_id}{of_pass} stands there already; --again makes another task")
    lines += [f"left out {event_id[-8:]}: {reason}" for event_id, reason in pushed.left_out]
    lines.append(f"task {pushed.task_id}: {pushed.url}")
    lines.append(f"when its jobs are completed: hub cvat pull {pushed.batch_id}{options}")
    return lines


def pulled_lines(pulled: Pulled) -> list[str]:
    """Return what a pull has imported and what it has left."""
    lines = list(pulled.notes)
    following: list[str] = []
    for answer in pulled.answers:
        if answer.imported is None:
            lines.append(f"task {answer.task_id}, {answer.annotator}: nothing has changed since the last pull")
        else:
            told = imported_lines(answer.imported)
            lines += told[:-1]
            following = told[-1:]
    for url, states in pulled.unfinished:
        lines.append(f"not completed: {url}: {states}")
    if pulled.unfinished:
        lines.append("set the jobs' state to completed there, or give --unfinished to take")
        lines.append("them as they are")
    return [*lines, *following]


def as_json(result: Pushed | Pulled) -> str:
    """Return either as one JSON object."""
    return msgspec.json.encode(result).decode()

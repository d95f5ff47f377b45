"""What `hub check` proves of the dataset versions: the folder of every row is there, and is what was frozen."""

from collections.abc import Iterator

from edge.contract.errors import UnusableError
from hub.datasets.version import read_jpeg, read_version
from hub.store import Store


def violations(store: Store) -> Iterator[str]:
    """Yield one sentence a violation. Reads every picture of every version."""
    for row in store.datasets.all():
        if row.forgotten_at_ms is not None:
            if row.folder.exists():
                yield f"dataset version {row.id} was forgotten, and its folder {row.folder} is there"
            continue
        try:
            version = read_version(row.folder)
        except UnusableError as error:
            yield f"dataset version {row.id}: {error}"
            continue
        if version.digest != row.digest:
            yield f"dataset version {row.id}: {row.folder} holds another version, {version.digest[:12]}"
            continue
        for member in version.members:
            try:
                read_jpeg(row.folder, member)
            except UnusableError as error:
                yield f"dataset version {row.id}: {error}"

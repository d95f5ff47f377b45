"""The `hub` command. Every command opens, calls one library function and prints.

Exit status: 0 done, 1 the answer is no, 2 it could not be done.
"""

import sys

import typer

from edge.contract.errors import WeakspotError

app = typer.Typer(
    no_args_is_help=True,
    help="Collect the findings of a fleet, remove near-duplicates and freeze batches for annotation.",
)


def main() -> None:
    """Run the command line; a cause that a person can act on becomes one line and exit status 2."""
    try:
        app()
    except WeakspotError as error:
        print(f"hub: {error}", file=sys.stderr)
        sys.exit(2)

"""`hub train`: a candidate from what was annotated and what the detector teaches itself. Exit status as in hub.cli."""

from pathlib import Path
from typing import Annotated

import typer

from edge.contract.errors import UnusableError
from edge.detector.opening import parse_size
from hub.cli_options import Config, Database, Json
from hub.datasets.layouts import Layout


def train(
    weak_spot: Annotated[
        int | None, typer.Option("--weakspot", "-w", metavar="ID", help="Train for this weak spot: its batch first.")
    ] = None,
    self_taught: Annotated[
        bool, typer.Option("--self-taught", help="On what the detector sees when it looks closer; no people's boxes.")
    ] = False,
    people_only: Annotated[
        bool, typer.Option("--people-only", help="On people's boxes; nothing that the detector taught itself.")
    ] = False,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="VERSION", help="On a dataset version: its number, or its folder.")
    ] = "",
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="The model that is deployed; else the starter model.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="A larger model that labels in place of the detector.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FOLDER", help="Pictures of anything, against forgetting.")
    ] = None,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="Without noisy copies.")] = False,
    input_size: Annotated[
        str,
        typer.Option(
            "--input", metavar="WIDTHxHEIGHT", help="Train at this size: `model.input` of edge.toml; else the card's."
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The candidate's folder; else candidates/NAME-DATASET.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The model's name; else that of the one it is made from.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of all that is drawn.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Else the usable CPUs, at most four.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="At most so many steps.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures in a step: less takes less memory.")] = (
        None
    ),
    rate: Annotated[float | None, typer.Option("--rate", min=0.0, help="The learning rate.")] = None,
    new_label: Annotated[
        list[str] | None, typer.Option("--new-label", metavar="NAME", help="Teach the model a new label; repeat it.")
    ] = None,
    command: Annotated[
        str, typer.Option("--command", help="Run this trainer of your own instead of the built-in one.")
    ] = "",
    layout: Annotated[Layout, typer.Option("--format", help="The layout that --command gets.")] = Layout.YOLO,
    anew: Annotated[bool, typer.Option("--anew", help="Drop what an unfinished training left.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    r"""Train the deployed ONNX file on what it missed, and leave a candidate.

    hub train --weakspot 3            people's boxes, and what the detector
                                      sees when it looks closer
    hub train --self-taught           without any label
    hub train --dataset 4             on a version that was frozen before

    Freezes a dataset version, says how long the training takes and how much
    memory, trains on the CPU, and writes candidates/NAME-VERSION: the ONNX
    file with other weights, its card, training.json. Then it tells baseline
    against candidate on the test split, which is never trained on.

    Ctrl-C, SIGTERM, kill -9: the same command goes on where it was. One seed
    gives one result. Where memory is short: a smaller --batch or --input.

    --command "..." runs your own trainer instead. It finds the pictures in
    $WEAKSPOT_DATASET, the model in $WEAKSPOT_MODEL, the size (320x192) in
    $WEAKSPOT_INPUT, and must leave $WEAKSPOT_OUT/model.onnx with the same
    labels and head; what `edge model check` refuses is not taken.
    """
    _require_one_source(dataset, weak_spot, self_taught=self_taught, people_only=people_only)
    if dataset and (teacher or replay or no_noise):
        msg = "--teacher, --replay and --no-noise are for freezing; the version of --dataset is frozen already"
        raise UnusableError(msg)

    from hub.datasets.freeze import Asked
    from hub.train.lines import trained_as_json, trained_lines
    from hub.train.order import Order, carry_out, changed
    from hub.train.recipe import Recipe
    from hub.train.screen import on_screen
    from hub.train.stopping import stoppable

    asked = Asked(weak_spot, not self_taught, not people_only, teacher, replay, not no_noise, seed)
    order = Order(
        asked=None if dataset else asked,
        dataset=dataset,
        model=model,
        input_size=parse_size(input_size) if input_size else None,
        out=out,
        name=name,
        recipe=changed(Recipe(seed=seed), steps=steps, rate=rate, batch=batch),
        threads=threads,
        new_labels=tuple(dict.fromkeys(new_label or ())),
        command=command,
        layout=layout,
        anew=anew,
        config=config,
        database=database,
    )
    try:
        with stoppable() as stop, on_screen() as screen:
            trained = carry_out(order, screen=screen, stop=stop)
    except KeyboardInterrupt:
        msg = "stopped; the same command starts again from the last checkpoint, if there is one"
        raise UnusableError(msg) from None
    print(trained_as_json(trained) if json else "\n".join(trained_lines(trained)))


def _require_one_source(dataset: str, weak_spot: int | None, *, self_taught: bool, people_only: bool) -> None:
    """Raise `UnusableError` unless it is clear what to train on."""
    msg = ""
    if dataset and (weak_spot is not None or self_taught or people_only):
        msg = "--dataset is frozen already: it goes without --weakspot, --self-taught and --people-only"
    elif self_taught and people_only:
        msg = "--self-taught is without people's boxes, and --people-only with nothing else: name one"
    elif not (dataset or weak_spot is not None or self_taught or people_only):
        msg = "name what to train on: --weakspot ID, --self-taught, --people-only or --dataset VERSION"
    if msg:
        raise UnusableError(msg)

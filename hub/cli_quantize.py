"""`hub quantize`: 8-bit variants of a release, where they are worth it. Exit status as in hub.cli."""

from pathlib import Path
from typing import Annotated

import typer

from edge.contract.errors import UnusableError
from edge.detector.opening import parse_size
from hub.cli_options import Config, Database, Json


def quantize(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_FOLDER", help="A folder with a model.json and its ONNX file.")
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="VERSION", help="A dataset version: its number, or its folder.")
    ],
    input_size: Annotated[
        str, typer.Option("--input", metavar="WIDTHxHEIGHT", help="Quantize for this input size; else the card's.")
    ] = "",
    budget: Annotated[
        float, typer.Option("--budget", min=0.0, max=100.0, help="Points of AP50 and of recall that may be lost.")
    ] = 1.0,
    aware: Annotated[
        bool, typer.Option("--aware", help="Fine-tune for 8 bits even where plain quantization keeps the budget.")
    ] = False,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Of the fine-tune; 0 for none at all.")] = 60,
    keep_slow: Annotated[
        bool, typer.Option("--keep-slow", help="Release what keeps the budget, though it is no faster here.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of one detection; else the usable CPUs, at most four.")
    ] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    r"""Make 8-bit variants of a release, and release those that are worth it.

    hub quantize candidates/starter-4 --dataset 4

    Calibrates on about 100 field pictures of the dataset version: by NNCF
    for OpenVINO, by ONNX Runtime for itself. Then it looks for the layers
    that must stay in float for no more than --budget points of AP50 and of
    recall at the working threshold to be lost, overall and for each size of
    object. Layers are chosen on val; the test split has its own line. Where
    that is not enough, and torch is installed, the weights are fine-tuned
    for 8 bits for some minutes.

    A variant is released only where it keeps the budget and takes at most
    95 % of float32's time on this machine. Another machine may be faster
    where this one is not: --keep-slow releases what keeps the budget, and
    `edge tune` measures it on the device, which never takes a slower one.

    Released variants stand in the folder's model.json, with a golden set;
    quantization.json holds all that was measured.

    Exits 0 when one is released, 1 when nothing is worth releasing here,
    2 when it could not be done; the folder is as it was then.
    """
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from hub.datasets.finding import find_version

    try:
        from hub.quantization.lines import quantization_lines
        from hub.quantization.quantize import Terms
        from hub.quantization.quantize import quantize as quantize_model
        from hub.quantization.watch import Watch
    except ModuleNotFoundError as missing:
        msg = f'{missing.name} is not installed; run: pip install "weakspot[quantize]"'
        raise UnusableError(msg) from None
    version = find_version(dataset, config=config, database=database)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        report = quantize_model(
            model,
            version,
            input_size=parse_size(input_size) if input_size else None,
            terms=Terms(budget=budget, aware=aware, keep_slow=keep_slow, threads=threads, steps=steps),
            watch=Watch(
                shown=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
                said=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            ),
        )
    print(msgspec.json.encode(report).decode() if json else "\n".join(quantization_lines(report)))
    if not report.released:
        raise typer.Exit(1)

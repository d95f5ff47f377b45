"""`edge model`: look at models, at those that this device holds, and go back by hand."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at detector models, and at those that this device holds.")

InputSize = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="WxH",
        help="Input size of the model, as in 320x192; without it the model card's. Smaller is faster and misses more. "
        "Give it the shape of your picture, so that no time goes into padding.",
    ),
]
ConfigPath = Annotated[Path, typer.Option("--config", metavar="FILE", help="The device's configuration, an edge.toml.")]


@app.command("check")
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file, or a folder with a model.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    input_size: InputSize = None,
) -> None:
    """Say whether a model can be used here: its head, labels and input, and how fast it runs on each runtime.

    Heads: centernet, yolox, yolo (v8, v9, v10, v11), detr (RT-DETR, D-FINE). The head is recognised from the outputs.
    What the file does not say of itself, such as its labels, stands in a model.json beside it; the starter model's
    is an example.

    Exit status: 0 usable, 1 the runtimes give different boxes, 2 not usable, with the reason.
    """
    import msgspec

    from edge.detector.checking import check_model
    from edge.detector.opening import parse_size

    report = check_model(model, input_size=parse_size(input_size) if input_size else None)
    if as_json:
        print(msgspec.json.encode(report).decode())
    else:
        width, height = report.input_size
        labels = ", ".join(report.labels[:4]) + (", ..." if len(report.labels) > 4 else "")
        print(f"model     {report.file}, release {report.release}, {'card' if report.carded else 'no card'}")
        print(f"head      {report.head}")
        print(f"labels    {len(report.labels)}: {labels}")
        print(f"input     {width}x{height}")
        print(f"features  {report.features or 'none'}")
        for one in report.runtimes:
            speed = (
                f"{one.infer_ms:.1f} ms on the {one.device}" if one.infer_ms is not None else f"unusable: {one.error}"
            )
            print(f"runtime   {one.name} {one.version}: {speed}")
        if report.tuned:
            print(f"tuned     {report.tuned}")
        if report.agreement is not None:
            print(f"agreement {report.agreement:.0%} of the best boxes are the same on both runtimes")
    if not report.agrees:
        raise typer.Exit(1)


@app.command("list")
def list_models(
    config: ConfigPath = Path("edge.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that this device holds, and which one is to serve.

    Slot 0 is the factory's: the model of edge.toml, or the starter. Every
    other slot is a release that came over the air, signed and unpacked. The
    one that served before is kept, so that going back needs no network.
    """
    import msgspec

    from edge.config import read_config
    from edge.slot_lines import model_lines, report_models

    report = report_models(read_config(config))
    print(msgspec.json.encode(report).decode() if as_json else "\n".join(model_lines(report)))


@app.command()
def rollback(
    config: ConfigPath = Path("edge.toml"),
    factory: Annotated[
        bool, typer.Option("--factory", help="Go back to the model of edge.toml, whatever served before.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Go back from the active release to the one before it, by hand.

    A running daemon swaps the model between two frames and tells the hub; it
    is waited for. Without one, the next start loads the other model.

    A release goes back only to what it names as its signed baseline, or to
    what served before while it is on trial. To the factory's model it goes
    back in any case, if you say --factory.

    Exit status: 0 done, 1 nothing signed allows the way back, 2 it could not
    be done.
    """
    import msgspec

    from edge.by_hand import go_back
    from edge.config import read_config
    from edge.slot_lines import model_lines, report_models

    settings = read_config(config)
    why_not = go_back(settings, factory=factory)
    if why_not:
        print(f"edge: {why_not}", file=sys.stderr)
        raise typer.Exit(1)
    report = report_models(settings)
    print(msgspec.json.encode(report).decode() if as_json else "\n".join(model_lines(report)))

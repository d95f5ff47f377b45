"""The `edge` command. Every command opens, calls one library function and prints.

Exit status: 0 done, 1 the answer is no, 2 it could not be done.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from edge.contract.errors import WeakspotError

app = typer.Typer(no_args_is_help=True, help="Run a detector on a device and mine the frames where it fails.")
model_app = typer.Typer(no_args_is_help=True, help="Look at detector models.")
app.add_typer(model_app, name="model")

InputSize = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="WxH",
        help="Input size of the model, as in 320x192; without it the model card's. Smaller is faster and misses more. "
        "Give it the shape of your picture, so that no time goes into padding.",
    ),
]
ModelPath = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="An ONNX file, or a folder with a model.json; without it the starter model (COCO's 80 classes).",
    ),
]
RuntimeName = Annotated[
    str,
    typer.Option("--runtime", help="auto, openvino or onnxruntime; auto takes OpenVINO where it is installed."),
]
ScoreThreshold = Annotated[
    float | None,
    typer.Option(
        "--score-threshold", min=0.0, max=1.0, help="The score from which a box counts; without it the model card's."
    ),
]


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files: JPEG, PNG, WebP ...")],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object a line and image, nothing else; draw only with --out."),
    ] = False,
    input_size: InputSize = None,
    score_threshold: ScoreThreshold = None,
    model: ModelPath = None,
    runtime: RuntimeName = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures with the boxes drawn; without it `detections`.")
    ] = None,
) -> None:
    """Find objects in images: prints the boxes, in pixels of the image, and writes a drawn copy of each image.

    Works at once with the starter model:  edge detect street.jpg

    An image that cannot be read is reported, the others are done, and the exit status is 2.
    """
    import msgspec

    from edge.detector.detector import open_detector
    from edge.detector.opening import parse_size
    from edge.detector.pictures import read_picture
    from edge.draw import draw_boxes, save_drawn
    from edge.pipeline import detection_boxes

    detector = open_detector(model, runtime=runtime, input_size=parse_size(input_size) if input_size else None)
    threshold = detector.score_threshold if score_threshold is None else score_threshold
    folder = out or (None if as_json else Path("detections"))
    unreadable = 0
    taken: Counter[str] = Counter()
    for path in images:
        try:
            image = read_picture(path)
        except WeakspotError as error:
            print(f"edge: {error}", file=sys.stderr)
            unreadable += 1
            continue
        found = detector.detect(image, score_threshold=threshold)
        boxes = detection_boxes(found.detections, detector.labels)
        drawn: Path | None = None
        if folder is not None:
            taken[path.stem] += 1
            name = path.stem if taken[path.stem] == 1 else f"{path.stem}-{taken[path.stem]}"
            drawn = save_drawn(draw_boxes(image, boxes), folder, name=name)
        if as_json:
            listed = [{"xyxy": box.xyxy, "label": box.label, "score": box.score} for box in boxes]
            print(msgspec.json.encode({"image": str(path), "boxes": listed}).decode())
            continue
        height, width = image.shape[:2]
        print(f"{path}: {width}x{height}, {len(boxes)} found, {sum(found.timings_ms):.1f} ms, drawn in {drawn}")
        for box in boxes:
            x1, y1, x2, y2 = (round(value) for value in box.xyxy)
            print(f"  {box.label[:32]:<32} {box.score:.2f}  {x1:>5} {y1:>5} {x2:>5} {y2:>5}")
    if unreadable:
        raise typer.Exit(2)


@model_app.command("check")
def model_check(
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
        if report.agreement is not None:
            print(f"agreement {report.agreement:.0%} of the best boxes are the same on both runtimes")
    if not report.agrees:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a cause that a person can act on becomes one line and exit status 2."""
    try:
        app()
    except WeakspotError as error:
        print(f"edge: {error}", file=sys.stderr)
        sys.exit(2)

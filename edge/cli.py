"""The `edge` command. Every command opens, calls one library function and prints.

Exit status: 0 done, 1 the answer is no, 2 it could not be done.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from edge.cli_model import ConfigPath, InputSize
from edge.cli_model import app as model_app
from edge.contract.errors import WeakspotError

app = typer.Typer(no_args_is_help=True, help="Run a detector on a device and mine the frames where it fails.")
app.add_typer(model_app, name="model")
bridge_app = typer.Typer(no_args_is_help=True, help="Take findings from another system's detector.")
app.add_typer(bridge_app, name="bridge")

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

    from edge.detector.following import open_tuned
    from edge.detector.opening import parse_size
    from edge.detector.pictures import read_picture
    from edge.draw import draw_boxes, save_drawn
    from edge.finding import detection_boxes

    detector = open_tuned(model, runtime=runtime, input_size=parse_size(input_size) if input_size else None)
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


@app.command()
def replay(
    video: Annotated[Path, typer.Argument(help="A recording: MP4, AVI, MKV ...")],
    out: Annotated[Path, typer.Option(help="Folder for detections.jsonl and findings.jsonl.", show_default=False)],
    input_size: InputSize = None,
    score_threshold: ScoreThreshold = None,
    model: ModelPath = None,
    runtime: RuntimeName = "auto",
    draw: Annotated[bool, typer.Option("--draw", help="Also write a picture of each finding to OUT/frames.")] = False,
    control_per_hour: Annotated[
        float, typer.Option(min=0.0, help="Frames drawn at random an hour of the recording.")
    ] = 4.0,
    zoom_budget: Annotated[
        float, typer.Option(min=0.0, max=4.0, help="Share of inferences added for second looks; 0 turns them off.")
    ] = 0.1,
    merge: Annotated[
        bool, typer.Option("--merge", help="What the second look finds joins the detections, marked `witness: zoom`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Run the camera pipeline over a recording, faster than real time and without a broker.

    Shows what `edge run` would mine:  edge replay street.mp4 --out found --draw

    detections.jsonl has a line a frame with all boxes from score 0.05 up. findings.jsonl has a line a finding, written
    as soon as its miner is sure; quotas do not apply. The same input gives the same files.
    """
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from edge.config import MiningConfig
    from edge.detector.detector import open_detector
    from edge.detector.opening import parse_size
    from edge.replay import count_frames, summary_lines
    from edge.replay import replay as replay_video

    claimed = count_frames(video)
    detector = open_detector(model, runtime=runtime, input_size=parse_size(input_size) if input_size else None)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(video.name, total=claimed or None)
        report = replay_video(
            video,
            out,
            detector=detector,
            score_threshold=detector.score_threshold if score_threshold is None else score_threshold,
            mining=MiningConfig(control_per_hour=control_per_hour, zoom_budget=zoom_budget, merge=merge),
            draw=draw,
            on_frame=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        totals = {
            "frames": report.frames,
            "claimed": claimed,
            "seconds": round(report.seconds, 3),
            "findings": dict(report.findings),
        }
        print(msgspec.json.encode(totals).decode())
    else:
        print("\n".join([*summary_lines(report, claimed=claimed), f"written to {out}"]))


@app.command()
def tune(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL_FOLDER]", help="A folder with a model.json, or an ONNX file; without it the starter model."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Tune the model of an edge.toml, at its input and threshold."),
    ] = None,
    input_size: InputSize = None,
    seconds: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Time to measure; opening comes on top.")] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write; without it tuned.json in data_dir, or beside the model. Only there it is looked for.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure each way of running a model on THIS device; pick the fastest.

    Variants (float32, int8 ...) on each installed runtime, at each precision
    and number of threads, each in a process of its own: whole detections, on
    the golden pictures that came with the model. A way whose boxes differ
    from the golden ones is never picked, however fast; nor is one that is
    less than 5 % faster than the default.

        edge tune --config edge.toml

    The choice is written to tuned.json. `edge run`, `edge detect` and `edge
    check` follow it while model, machine and runtime are the same and
    edge.toml names no runtime, threads or providers. Measure while the device
    does what it always does; it takes the place of no running daemon.

    Exit status: 0 picked, 1 nothing gives the right boxes here, 2 it could
    not be done.
    """
    import time

    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from edge.config import read_config
    from edge.contract.errors import UnusableError
    from edge.detector.opening import parse_size
    from edge.detector.tune import tune as tune_model
    from edge.detector.tune import write_tuned
    from edge.opening import active_release
    from edge.tuning import open_to_choice, target_path, tune_answer, tune_lines

    settings = read_config(config) if config is not None else None
    if settings is not None and model is not None:
        msg = "--config names the model already: give one of the two"
        raise UnusableError(msg)
    size = parse_size(input_size) if input_size else None
    threshold = None
    if settings is not None:
        open_to_choice(settings)
        model, threshold = active_release(settings) or settings.model.path, settings.model.score_threshold
        size = size or settings.model.input_size
    target = target_path(model, config=settings, out=out)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("tune", total=None)
        report = tune_model(
            model,
            input_size=size,
            score_threshold=threshold,
            seconds=seconds,
            on_step=lambda done, steps, what: progress.update(task, completed=done, total=steps, description=what),
        )
    written = target if report.picked is not None else None
    if written is not None:
        write_tuned(report, written, at_ms=time.time_ns() // 1_000_000)
    print(
        msgspec.json.encode(tune_answer(report, written)).decode()
        if as_json
        else "\n".join(tune_lines(report, written))
    )
    if report.picked is None:
        raise typer.Exit(1)


@app.command()
def run(
    config: ConfigPath = Path("edge.toml"),
    exit_at_end: Annotated[
        bool,
        typer.Option(
            "--exit-at-end", help="For recordings: end once every camera's file is played and the hub wants no more."
        ),
    ] = False,
) -> None:
    """Run the device: capture, detect, mine, and hand the findings to the hub.

    Needs neither the broker nor a camera to be there at the start: it waits for both, and keeps findings on the disk
    meanwhile. SIGTERM and Ctrl-C write what is in hand to the disk and end it with status 0.
    """
    import logging
    import os

    from edge.config import read_config
    from edge.daemon import run as run_daemon
    from edge.health import notify
    from edge.signals import stop_on_signals

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_config(config)
    stop = stop_on_signals()
    systemd = os.environ.get("NOTIFY_SOCKET")
    run_daemon(settings, stop=stop, exit_at_end=exit_at_end, tell=lambda message: notify(systemd, message))


@bridge_app.command("frigate")
def bridge_frigate(config: ConfigPath = Path("edge.toml")) -> None:
    """Make samples of Frigate's events and snapshots, and hand them to the hub: instead of `edge run`.

    The configuration needs a section `frigate`: where Frigate's broker is, and best the URL of its API as well. What
    Frigate dropped as a false positive becomes `missed`, as far as Frigate tells of it: see the README.

    Needs neither broker nor Frigate to be there at the start. SIGTERM and Ctrl-C end it with status 0.
    """
    import logging
    import os

    from edge.bridge import run as run_bridge
    from edge.config import read_config
    from edge.health import notify
    from edge.signals import stop_on_signals

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_config(config)
    stop = stop_on_signals()
    systemd = os.environ.get("NOTIFY_SOCKET")
    run_bridge(settings, stop=stop, tell=lambda message: notify(systemd, message))


@app.command()
def check(config: ConfigPath = Path("edge.toml")) -> None:
    """Prove that the device can work: model, cameras, the samples on its disk, broker; a line each.

    Exit status: 0 all is well, 1 a sample on the disk is broken, 2 something cannot be used or does not answer.
    """
    from edge.check import Outcome, check_device
    from edge.config import read_config

    settings = read_config(config)
    print(f"config: good: {config}")
    worst = Outcome.GOOD
    for verdict in check_device(settings):
        line = f"{verdict.name}: {verdict.outcome.name.lower()}: {verdict.text}"
        print(line, file=sys.stdout if verdict.outcome is Outcome.GOOD else sys.stderr, flush=True)
        worst = max(worst, verdict.outcome)
    raise typer.Exit(int(worst))


@app.command()
def status(
    config: ConfigPath = Path("edge.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what the device does and has on its disk. Exits 1 when the daemon is not running."""
    import msgspec

    from edge.check import report_device, status_lines
    from edge.config import read_config

    report = report_device(read_config(config))
    print(msgspec.json.encode(report).decode() if as_json else "\n".join(status_lines(report)))
    if not report.running:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a cause that a person can act on becomes one line and exit status 2."""
    try:
        app()
    except WeakspotError as error:
        print(f"edge: {error}", file=sys.stderr)
        sys.exit(2)

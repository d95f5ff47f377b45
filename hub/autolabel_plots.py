"""The pictures of `hub autolabel report`, as Ground Truth's notebook shows them: see hub.label_plots."""

from pathlib import Path

from edge.contract.errors import UnusableError
from hub.autolabel_report import Report, examples
from hub.label_plots import confident_picture, iou_picture, iterations_picture
from hub.plots import save
from hub.store import Store


def draw(store: Store, report: Report, out: Path) -> list[Path]:
    """Write the PNGs that have something to show into a folder, which is made, and return them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {out}: {error.strerror}"
        raise UnusableError(msg) from error
    pictures = {
        "rounds.png": iterations_picture(report.rounds, currency=report.currency),
        "iou.png": iou_picture(report.ious("person"), report.ious("machine")),
        "most-confident.png": confident_picture(examples(store, report.held)),
    }
    written = []
    for name, figure in pictures.items():
        if figure is not None:
            save(figure, out / name)
            written.append(out / name)
    return written

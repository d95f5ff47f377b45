"""`hub plot`: what is drawn equals what the store holds; the file is a PNG; nothing to draw says so and exits 1."""

import itertools
import time
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge.contract.status import RecallCounts
from edge.contract.topics import Kind
from hub.cli import app
from hub.plots import CAMERAS_SHOWN, findings_picture, recall_picture, recall_points, save, weak_spot_picture
from hub.recall import HOUR_MS, estimate
from hub.store import Store
from hub.store_weakspots import StepRow
from tests.hub.made import arrival, event_payload

START = 1_700_000_000_000 - 1_700_000_000_000 % (24 * HOUR_MS)
SPAN = {"since_ms": START, "until_ms": START + 48 * HOUR_MS}
ZONE = {"zone": UTC, "zone_name": "UTC"}
MANY = RecallCounts(frames=10, detector=30, second_look=40, both=24)
FEW = RecallCounts(frames=1, detector=1, second_look=3, both=1)
runner = CliRunner()


def days(at_ms) -> float:
    return at_ms / (24 * HOUR_MS)


def drawn_bars(axis) -> dict[float, float]:
    return {bar.get_x(): bar.get_height() for bar in axis.patches}


def step(hour, rate, *, state="open", batch_id=None, model="starter-1") -> StepRow:
    numbers = {"rate": rate, "low": None, "high": None, "against": None}
    if rate is not None:
        numbers |= {"low": rate - 0.05, "high": rate + 0.05, "against": 0.09}
    told = {
        "at_ms": START + hour * HOUR_MS,
        "state": state,
        "model": model,
        "batch_id": batch_id,
        "note": "",
        "measured": False,
    }
    return StepRow(missed=5, found=9, **told, **numbers)


def test_bars_are_the_findings_of_the_store(tmp_path):
    """Two cameras; one has a gap of hours; one finding before the span is left out."""
    hours = {"door": [0, 0, 0, 5, 6, 6], "yard": [1, 47], "old": [-1]}
    with Store.open(tmp_path / "hub.db") as store:
        number = 0
        for camera, when in hours.items():
            for hour in when:
                at_ms = START + hour * HOUR_MS + 1000
                event = event_payload(number, camera=camera, captured_at_ms=at_ms)
                store.commit([arrival(Kind.EVENT, event)], now_ms=START + number * HOUR_MS)
                number += 1
        counts = store.series.findings(since_ms=START)
    figure = findings_picture(counts, **SPAN, **ZONE)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["lab/box/door: 6 findings", "lab/box/yard: 2 findings"]
    assert drawn_bars(figure.axes[0]) == {days(START): 3, days(START + 5 * HOUR_MS): 1, days(START + 6 * HOUR_MS): 2}
    assert drawn_bars(figure.axes[1]) == {days(START + HOUR_MS): 1, days(START + 47 * HOUR_MS): 1}
    assert figure.axes[0].get_xlim() == (days(START), days(SPAN["until_ms"]))


def test_old_findings_are_not_read_for_a_short_span(tmp_path):
    """The search for where to begin finds the first row that can count, whatever numbers are missing."""
    with Store.open(tmp_path / "hub.db") as store:
        for number in range(60):
            at_ms = START + number * HOUR_MS
            store.commit([arrival(Kind.EVENT, event_payload(number, captured_at_ms=at_ms))], now_ms=at_ms)
        store._connection.execute("DELETE FROM finding WHERE id BETWEEN 20 AND 35")
        series = store.series
        for hour in range(-1, 62):
            first = series._first_since(START + hour * HOUR_MS)
            rows = store._connection.execute(
                "SELECT coalesce(min(id), 61) FROM finding WHERE received_at_ms >= ?", (START + hour * HOUR_MS,)
            ).fetchone()[0]
            here = store._connection.execute("SELECT count(*) FROM finding WHERE id >= ? AND id < ?", (first, rows))
            assert first <= rows
            assert here.fetchone() == (0,)


def test_many_cameras_are_the_first_eight_and_all_others_together():
    counts = [("s", "d", f"c{n:02}", START + n % 3 * HOUR_MS, 100 - n) for n in range(40)]
    figure = findings_picture(counts, **SPAN, **ZONE)
    assert len(figure.axes) == CAMERAS_SHOWN + 1
    last = figure.axes[-1]
    rest = [100 - n for n in range(CAMERAS_SHOWN, 40)]
    assert last.get_title(loc="left") == f"32 other cameras together: {sum(rest):,} findings"
    assert sum(drawn_bars(last).values()) == sum(rest)
    assert len({axis.get_ylim() for axis in figure.axes[:-1]}) == 1  # one scale, so that rows can be compared


def test_recall_takes_as_few_hours_together_as_are_enough():
    full = [("s", "d", "c", START + n * HOUR_MS, MANY) for n in range(6)]
    assert recall_points(full)[0] == 1
    thin = [("s", "d", "c", START + n * HOUR_MS, FEW) for n in range(24)]
    hours, points = recall_points(thin)
    assert hours == 6
    assert len(points) == 4
    one = estimate(RecallCounts(frames=6, detector=6, second_look=18, both=6))
    assert points[0] == (START, one.recall, one.low, one.high)
    assert recall_points(thin[:2])[1] == []


def test_the_band_and_the_line_are_the_estimates_and_a_gap_stays_open():
    rows = [("s", "d", "c", START + n * HOUR_MS, MANY) for n in (0, 1, 2, 5, 6, 9)]
    axis = recall_picture(rows, **SPAN, **ZONE).axes[0]
    one = estimate(MANY)
    middles = [[days(START + n * HOUR_MS + HOUR_MS // 2) for n in run] for run in ((0, 1, 2), (5, 6), (9,))]
    assert [list(line.get_xdata()) for line in axis.lines] == middles
    assert all(set(line.get_ydata()) == {one.recall} for line in axis.lines)
    bands = [band for band in axis.collections if hasattr(band, "get_data") or "FillBetween" in type(band).__name__]
    assert len(bands) == 3
    extents = np.vstack([path.vertices for band in bands for path in band.get_paths()])
    assert (extents[:, 1].min(), extents[:, 1].max()) == pytest.approx((one.low, one.high))


def test_a_weak_spot_has_its_rate_the_rest_and_its_marks():
    steps = [
        step(0, 0.41),
        step(3, 0.40, state="batched", batch_id=4),
        step(5, None, state="annotated", batch_id=4),
        step(6, 0.20, state="trained", model="starter-2"),
        step(9, 0.11, state="fixed"),
    ]
    axis = weak_spot_picture("weak spot 3: tiny", steps, **ZONE).axes[0]
    rate, rest = axis.lines[0], axis.lines[1]
    assert list(rate.get_xdata()) == [days(START + hour * HOUR_MS) for hour in (0, 3, 6, 9)]
    assert list(rate.get_ydata()) == [0.41, 0.40, 0.20, 0.11]
    assert set(rest.get_ydata()) == {0.09}
    assert [text.get_text() for text in axis.texts] == ["batch 4", "annotated", "trained starter-2", "fixed"]
    assert [line.get_xdata()[0] for line in axis.lines[2:]] == [days(START + hour * HOUR_MS) for hour in (3, 5, 6, 9)]


@pytest.mark.parametrize(
    "picture",
    [
        lambda: findings_picture(
            [("s", "d", "c$x$", START, 1)], **SPAN, zone=ZoneInfo("Asia/Kolkata"), zone_name="IST"
        ),
        lambda: recall_picture([("s", "d", "c", START, MANY)], **SPAN, **ZONE),
        lambda: weak_spot_picture("one " * 60, [step(0, 0.5)], **ZONE),
    ],
    ids=["findings", "recall", "weak spot"],
)
def test_one_point_makes_a_png(tmp_path, picture):
    """Also with a long name, a name that matplotlib could take for a formula, and another time zone."""
    save(picture(), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert cv2.imread(str(tmp_path / "one.png")).shape[1] == 1080


def test_labels_of_the_time_axis_do_not_overlap(tmp_path):
    """From an hour to a year."""
    for hours in (1, 7, 24, 60, 24 * 7, 24 * 40, 24 * 365):
        span = {"since_ms": START, "until_ms": START + hours * HOUR_MS}
        figure = findings_picture([("s", "d", "c", START, 1)], **span, **ZONE)
        save(figure, tmp_path / "a.png")
        boxes = [label.get_window_extent() for label in figure.axes[-1].get_xticklabels() if label.get_text()]
        assert len(boxes) >= 2, hours
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes)), hours


def draw(*words, database: Path):
    return runner.invoke(app, ["plot", *words, "--database", str(database)])


def test_the_commands(tmp_path):
    database, out = tmp_path / "hub.db", tmp_path / "out.png"
    now_ms = time.time_ns() // 1_000_000
    hour_ms = now_ms - now_ms % HOUR_MS
    with Store.open(database) as store:
        event = event_payload(1, captured_at_ms=now_ms)
        store.commit([arrival(Kind.EVENT, event)], now_ms=now_ms)
        store._connection.execute(
            "INSERT INTO recall_hour VALUES (?, 'lab', 'box', 'door', 10, 30, 40, 24)", (hour_ms,)
        )
        store.spots.open("tiny", " tiny ", manual=False, first=step(0, 0.4))
    for words in (["findings"], ["recall"], ["recall", "--camera", "lab/box/door"], ["weak-spot", "1"]):
        done = draw(*words, "--out", str(out), database=database)
        assert (done.exit_code, done.stdout) == (0, f"drawn: {out}\n"), done.output
        assert out.read_bytes().startswith(b"\x89PNG\r\n")
        out.unlink()


def test_nothing_to_draw_says_so_and_exits_1(tmp_path):
    database, out = tmp_path / "hub.db", tmp_path / "out.png"
    with Store.open(database) as store:
        store.spots.open("tiny", " tiny ", manual=False, first=step(0, None))
    for words, says in (
        ("findings", "no finding"),
        ("recall", "no camera has enough"),
        ("weak-spot 1", "never measured"),
    ):
        done = draw(*words.split(), "--out", str(out), database=database)
        assert done.exit_code == 1
        assert says in done.stderr
        assert not out.exists()

"""A restart between any two findings changes no group: hub.dedupe through the real database, page by page."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.samples import Reason, encode_event
from edge.contract.topics import Kind
from hub.store import Store
from hub.store_rows import FindingRow
from tests.hub.made import arrival, event_id, finding
from tests.hub.sighted import curator
from tests.hub.test_dedupe import DAY_MS, NOON_MS, bits, findings, row, walkers

Page = list[FindingRow]


def first_numbers(groups: Sequence[int | None]) -> list[int]:
    """Name each group by the place of its first finding: it has another number where more pages were counted."""
    return [groups.index(group) for group in groups]


def group_pages(pages: Sequence[Page], *, restarts: bool) -> list[int]:
    """Commit and group page by page, by one curator or by a new one for each page; return the group of each finding."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "hub.db") as store:
        now = curator(store)
        numbers: Iterator[int] = iter(range(sum(map(len, pages))))
        for page in pages:
            sent = [_payload(each, next(numbers)) for each in page]
            store.commit(
                [
                    arrival(Kind.EVENT, payload, site=each.site, device=each.device)
                    for each, payload in zip(page, sent, strict=True)
                ],
                now_ms=NOON_MS,
            )
            if restarts:
                now = curator(store)
            while now._group():
                pass
        count = sum(map(len, pages))
        return first_numbers([store.finding(event_id(number)).group_id for number in range(count)])


def _payload(each: FindingRow, number: int) -> bytes:
    told = {name: getattr(each, name) for name in ("site", "device", "camera", "reason", "label", "captured_at_ms")}
    told |= {name: getattr(each, name) for name in ("region", "width", "height", "track")}
    hashes = {"crop_hash": each.crop_hash.hex(), "frame_hash": each.frame_hash.hex()}
    return encode_event(finding(number, **told, **hashes, features=each.features.tobytes(), boxes=()), b"")


pages = st.lists(
    st.lists(
        st.one_of(
            walkers, findings.filter(lambda each: each.reason is not Reason.CONTROL and each.region[2] > each.region[0])
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=8,
)


@given(pages)
@settings(max_examples=60, deadline=None)
def test_a_restart_between_any_two_pages_changes_no_group(made: list[Page]) -> None:
    assert group_pages(made, restarts=True) == group_pages(made, restarts=False)


def test_what_a_group_is_known_by_survives_a_restart() -> None:
    """Its looks, the track that it follows, since when, and how long it was seen: each decides one finding here."""
    here, there = (100.0, 100.0, 140.0, 200.0), (300.0, 100.0, 340.0, 200.0)
    rows = [
        row(0, track="a", crop_hash=bits(60)),
        row(1, track="a", crop_hash=bits(100), captured_at_ms=NOON_MS + 1000),  # a second look
        row(2, track="a", crop_hash=bits(140), captured_at_ms=NOON_MS + 60_000),  # too far from the first, by it alone
        row(3, track="b", crop_hash=bits(140), captured_at_ms=NOON_MS + 120_000),  # followed from now on
        row(4, track="c", crop_hash=bits(140), captured_at_ms=NOON_MS + 90_000),  # between: "b" was not alive yet
        row(5, track="b", region=there, captured_at_ms=NOON_MS + 130_000),
        row(6, track="c", region=there, captured_at_ms=NOON_MS + 131_000),  # "b" was alive with it
        row(7, region=here, crop_hash=bits(100), captured_at_ms=NOON_MS + 120_000 + DAY_MS),
    ]
    pages_of_one = [[each] for each in rows]
    kept = group_pages(pages_of_one, restarts=False)
    assert group_pages(pages_of_one, restarts=True) == kept
    assert kept == [0, 0, 0, 0, 0, 5, 6, 0]

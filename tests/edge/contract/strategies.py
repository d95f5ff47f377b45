"""Valid findings for hypothesis. Used by the tests of the wire and of the hub."""

from hypothesis import strategies as st

from edge.contract.samples import Box, Finding, Light, Reason, Witness, WitnessKind

NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}\Z")
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
SCORES = st.floats(0, 1)
FINITE = st.floats(0, 1e6)
SEEN = st.characters(exclude_categories=("C", "Z")) | st.just(" ")
TEXTS = st.text(SEEN, max_size=20).map(str.strip)


@st.composite
def boxes_inside(draw: st.DrawFn, width: int, height: int) -> tuple[float, float, float, float]:
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    return x1, y1, draw(st.floats(x1 + 0.5, width)), draw(st.floats(y1 + 0.5, height))


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    width, height = draw(st.integers(8, 4000)), draw(st.integers(8, 4000))
    place = boxes_inside(width, height)
    box = st.builds(Box, xyxy=place, label=TEXTS, score=SCORES, witness=st.none() | st.sampled_from(WitnessKind))
    witness = st.builds(Witness, kind=st.sampled_from(WitnessKind), score=SCORES)
    return Finding(
        event_id=draw(IDS),
        site=draw(NAMES),
        device=draw(NAMES),
        camera=draw(NAMES),
        sequence=draw(st.integers(0, 2**40)),
        captured_at_ms=draw(st.integers(0, 2**45)),
        reason=draw(st.sampled_from(Reason)),
        severity=draw(SCORES),
        score_threshold=draw(SCORES),
        refuted=draw(st.booleans()),
        region=draw(place),
        label=draw(TEXTS),
        boxes=tuple(draw(st.lists(box, max_size=5))),
        witnesses=tuple(draw(st.lists(witness, max_size=4))),
        tags=tuple(draw(st.lists(st.sampled_from(["dark", "tiny", "noisy"]), max_size=3))),
        width=width,
        height=height,
        crop_hash=draw(HASHES),
        frame_hash=draw(HASHES),
        features=draw(st.binary(max_size=256)),
        light=Light(draw(FINITE), draw(FINITE), draw(FINITE), draw(FINITE)),
        model=draw(TEXTS),
        frame_bytes=draw(st.integers(1, 1000)),
        frame_sha256=draw(HASHES),
    )

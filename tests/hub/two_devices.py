"""A hub's database with the findings of two devices, one of which is to be forgotten."""

from edge.contract.policy import Policy
from edge.contract.samples import Box, Reason, WitnessKind
from edge.contract.status import CameraHealth, Heartbeat, RecallCounts, SpoolHealth, encode
from edge.contract.topics import Kind
from hub.check import check_lines
from hub.store import BatchMember, GroupAssignment
from hub.store_forgotten import Scope
from tests.hub.made import arrival, event_id, event_payload, finding, part_payloads, state_payload

NOW = 1_700_000_100_000
FILLED = NOW - 1
LATER = NOW + 60_000
CAPTURED = 1_700_000_010_000  # of finding 0; every number is a millisecond later
WHOLE_BOX = Scope("lab", "box", NOW, whole=True)
COUNTS = RecallCounts(frames=100, detector=50, second_look=60, both=40)


def event(number, *, device="box", camera="secretcam", inline=True, **changes):
    payload = event_payload(number, inline=inline, device=device, camera=camera, **changes)
    return arrival(Kind.EVENT, payload, device=device)


def beat(*, device="box", camera="secretcam", boot_id="boot-1", at_ms=NOW, uptime_s=5.0, counts=COUNTS):
    health = CameraHealth(
        name=camera, state="running", frames=100, fps=5.0, restarts=0, frame_age_s=0.2, detect_ms=20.0, recall=counts
    )
    spool = SpoolHealth(samples=0, unsent=0, bytes=0, limit_bytes=1)
    payload = encode(
        Heartbeat(
            boot_id=boot_id,
            at_ms=at_ms,
            uptime_s=uptime_s,
            model="m",
            cameras=(health,),
            spool=spool,
            findings={},
            dropped={},
            bytes_up=0,
        )
    )
    return arrival(Kind.HEARTBEAT, payload, device=device)


def joining(number, group_id, *, new) -> GroupAssignment:
    """A member that the group follows, and is known by, from then on."""
    if new:
        return GroupAssignment(event_id(number), group_id, new=True)
    looks = bytes.fromhex(finding(number).crop_hash)
    return GroupAssignment(event_id(number), group_id, new=False, tracked=True, looks=looks)


def fill(store) -> None:
    """Two devices, groups of either and of both, a batch of both, sightings, parts, policies, a refused message.

    0..19 are of `box`, 20..39 of `other`; 0, 1 and 20 are one group that 0 leads, 2 and 21 one that 21 leads.
    """
    control = {
        "reason": Reason.CONTROL,
        "looked_twice": True,
        "boxes": (Box((1.0, 2.0, 9.0, 9.0), "person", 0.4, WitnessKind.ZOOM, ("tiny",)),),
    }

    def more(number):
        return control if number % 10 == 9 else {}

    for device, camera, numbers in (("box", "secretcam", range(20)), ("other", "yardcam", range(20, 40))):
        made = [
            event(n, device=device, camera=camera, inline=n % 3 == 0, track=f"{camera}:{n}", **more(n)) for n in numbers
        ]
        store.commit([*made, beat(device=device, camera=camera)], now_ms=FILLED)
        store.commit([arrival(Kind.STATE, state_payload(), device=device)], now_ms=FILLED)
        store.edit_policy("lab", device, lambda _: Policy(paused=True), now_ms=FILLED)
    parts = [arrival(Kind.FRAME, part) for part in part_payloads(1)[:1]]
    store.commit([*parts, arrival(Kind.EVENT, b"WSP1 lab box secretcam junk")], now_ms=FILLED)
    groups = {0: 1, 1: 1, 20: 1, 21: 2, 2: 2}
    groups |= {n: n for n in range(3, 40) if n not in groups}
    leaders = {1: 0, 2: 21} | {n: n for n in range(3, 40)}
    order = sorted(groups, key=lambda n: leaders[groups[n]] != n)
    store.assign_groups([joining(n, groups[n], new=leaders[groups[n]] == n) for n in order])
    members = [BatchMember(event_id(n), groups[n], "why", 1.0) for n in (3, 24, 6, 27, 0)]
    store.freeze_batch(members, now_ms=FILLED, title="missed person, mostly dark, cameras secretcam and yardcam")
    spot = "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms) VALUES (?, ?, ?, 'open', ?, ?)"
    texts = [
        ("dark, cameras secretcam and yardcam", " dark ", 0),
        ("tiny, camera secretcam", " camera:lab/box/secretcam tiny ", 0),
        ("camera:lab/box/secretcam and dark", "camera:lab/box/secretcam and dark", 1),
        ("tiny, camera yardcam", " camera:lab/other/yardcam tiny ", 0),
    ]
    store._connection.executemany(spot, [(*text, NOW - 5, NOW) for text in texts])


def require_sound(store) -> None:
    lines, holds = check_lines(store)
    assert holds, lines


def forget(store, scope=WHOLE_BOX, *, now_ms=NOW) -> None:
    list(store.upkeep.forget(scope, now_ms=now_ms))


def one(store, query):
    return store._connection.execute(query).fetchone()[0]

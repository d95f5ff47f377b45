"""The tables of the hub's database, as SQL. They are made by hub.migrations.

`finding.header` is the JSON as the device sent it; the other columns repeat what a query needs. The frame's bytes stand
in their own table, so that a scan over findings does not read pictures. `frame_part` has no reference to `finding`:
with a shared subscription a part can be committed by one process before the other has committed its finding.

`finding_pool` and `finding_picture` hold what fills the pool of hub.wants, and which pictures are here or on their way;
a black frame has zeros for a hash and is never asked for.

`policy.payload` is what the devices are sent; the row without a device is its site's.

`rollout`, `rollout_member`, `device_order` and `foreign_order` are hub.store_rollouts': `head` is a rollout without its
members, `device_order` what a device is sent, `foreign_order` what it was sent by a rollout that is not known here.

`recall_hour` has the counts of hub.recall that were heard in an hour, `recall_mark` how far each boot is in them: a
heartbeat adds what is above its boot's mark.

`label_set` and what follows it are hub.store_labels'; `batch.random` says that its images were drawn, not chosen.

`finding.tags` and `sighting.tags` are words between spaces, as hub.tags joins them. A sighting is one object once: see
hub.store_sightings.

`cvat_task` is hub.store_cvat's.

`dataset_version` and `dataset_image` are hub.store_datasets': which folders were written, and whose pictures are in
them. `forgotten_at_ms`: the folder was removed, because something in it was forgotten. `weak_spot_id` may be of one
that was dropped since: it had no batch.

`forgotten` says what `hub forget` removes for good: see hub.store_forgotten. `batch.forgotten` is how many images of a
frozen batch went that way; their ranks stay empty. `batch.forgotten_honeypots` counts known answers that were mixed in.

The indexes hold every column that the curator counts with: a finding's row carries its header, and a scan over the
rows would read the whole file. An index over every finding must grow at its end: a page is written anew for each entry
that falls elsewhere, so the larger the database the slower the ingest. That is why `finding_count`, kept by triggers,
has what `hub status` counts, and why the devices' event ids begin with the time.
"""

from typing import Final

SCHEMA: Final = """
CREATE TABLE device (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    boot_id TEXT,
    online INTEGER NOT NULL DEFAULT 0,
    state BLOB,
    state_at_ms INTEGER,
    heartbeat BLOB,
    heartbeat_at_ms INTEGER,
    PRIMARY KEY (site, device)
) WITHOUT ROWID;

CREATE TABLE near_duplicate_group (
    id INTEGER PRIMARY KEY,
    leader_event_id TEXT NOT NULL,
    site TEXT NOT NULL,
    camera TEXT NOT NULL,
    label TEXT NOT NULL,
    size INTEGER NOT NULL,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    track TEXT NOT NULL,
    track_at_ms INTEGER NOT NULL,
    looks BLOB NOT NULL
);

CREATE TABLE finding (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    camera TEXT NOT NULL,
    reason TEXT NOT NULL,
    severity REAL NOT NULL,
    label TEXT NOT NULL,
    captured_at_ms INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    x1 REAL NOT NULL,
    y1 REAL NOT NULL,
    x2 REAL NOT NULL,
    y2 REAL NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    track TEXT NOT NULL,
    tags TEXT NOT NULL,
    crop_hash BLOB NOT NULL CHECK (length(crop_hash) = 32),
    frame_hash BLOB NOT NULL CHECK (length(frame_hash) = 32),
    features BLOB NOT NULL,
    model TEXT NOT NULL,
    header BLOB NOT NULL,
    frame_state TEXT NOT NULL CHECK (frame_state IN ('held', 'wanted', 'present', 'gone', 'refused')),
    frame_bytes INTEGER NOT NULL,
    frame_sha256 BLOB NOT NULL CHECK (length(frame_sha256) = 32),
    want_open INTEGER NOT NULL DEFAULT 0,
    wanted_at_ms INTEGER,
    asked_at_ms INTEGER,
    group_id INTEGER REFERENCES near_duplicate_group (id)
);

CREATE INDEX finding_ungrouped ON finding (id) WHERE group_id IS NULL;

CREATE INDEX finding_group ON finding (group_id) WHERE group_id IS NOT NULL;

CREATE INDEX finding_present ON finding (id, group_id, reason, received_at_ms, frame_bytes)
    WHERE frame_state = 'present';

CREATE INDEX finding_wanted ON finding (site, device, asked_at_ms) WHERE frame_state = 'wanted';

CREATE INDEX finding_wanted_at ON finding (wanted_at_ms, site, device, reason, frame_state, frame_bytes)
    WHERE wanted_at_ms IS NOT NULL;

CREATE INDEX finding_pool
    ON finding (group_id, site, device, reason, severity, wanted_at_ms, frame_state, frame_hash)
    WHERE frame_state = 'present' AND frame_hash <> zeroblob(32);

CREATE INDEX finding_picture ON finding (site, device, frame_sha256, frame_state, reason, event_id, group_id)
    WHERE frame_state IN ('wanted', 'present') AND reason <> 'control';

CREATE INDEX finding_want_open ON finding (id, received_at_ms) WHERE want_open = 1;

CREATE TABLE finding_count (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    frame_state TEXT NOT NULL,
    reason TEXT NOT NULL,
    findings INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (site, device, frame_state, reason)
) WITHOUT ROWID;

CREATE TRIGGER finding_came AFTER INSERT ON finding BEGIN
    INSERT INTO finding_count VALUES (new.site, new.device, new.frame_state, new.reason, 1, new.frame_bytes)
        ON CONFLICT DO UPDATE SET findings = findings + 1, bytes = bytes + excluded.bytes; END;

CREATE TRIGGER finding_went AFTER DELETE ON finding BEGIN
    UPDATE finding_count SET findings = findings - 1, bytes = bytes - old.frame_bytes
        WHERE (site, device, frame_state, reason) = (old.site, old.device, old.frame_state, old.reason);
    DELETE FROM finding_count
        WHERE (site, device, frame_state, reason) = (old.site, old.device, old.frame_state, old.reason)
        AND findings = 0; END;

CREATE TRIGGER finding_frame_moved AFTER UPDATE OF frame_state ON finding BEGIN
    UPDATE finding_count SET findings = findings - 1, bytes = bytes - old.frame_bytes
        WHERE (site, device, frame_state, reason) = (old.site, old.device, old.frame_state, old.reason);
    DELETE FROM finding_count
        WHERE (site, device, frame_state, reason) = (old.site, old.device, old.frame_state, old.reason)
        AND findings = 0;
    INSERT INTO finding_count VALUES (new.site, new.device, new.frame_state, new.reason, 1, new.frame_bytes)
        ON CONFLICT DO UPDATE SET findings = findings + 1, bytes = bytes + excluded.bytes; END;

CREATE TABLE frame (
    finding_id INTEGER PRIMARY KEY REFERENCES finding (id),
    jpeg BLOB NOT NULL
);

CREATE TABLE frame_part (
    event_id TEXT NOT NULL,
    offset INTEGER NOT NULL,
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    part BLOB NOT NULL,
    PRIMARY KEY (event_id, offset)
);

CREATE INDEX frame_part_device ON frame_part (site, device, received_at_ms);

CREATE TABLE refused_message (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    reason TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    head BLOB NOT NULL
);

CREATE TABLE policy (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    payload BLOB NOT NULL,
    set_at_ms INTEGER NOT NULL,
    PRIMARY KEY (site, device)
) WITHOUT ROWID;

CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('running', 'halted', 'stopped', 'complete', 'rolled_back', 'replaced')),
    head BLOB NOT NULL
);

CREATE UNIQUE INDEX rollout_active ON rollout (model) WHERE state IN ('running', 'halted');

CREATE TABLE rollout_member (
    rollout_id INTEGER NOT NULL REFERENCES rollout (id),
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    member BLOB NOT NULL,
    PRIMARY KEY (rollout_id, site, device)
) WITHOUT ROWID;

CREATE TABLE device_order (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    rollout_id INTEGER NOT NULL REFERENCES rollout (id),
    payload BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (site, device)
) WITHOUT ROWID;

CREATE TABLE foreign_order (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    payload BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (site, device)
) WITHOUT ROWID;

CREATE TABLE recall_hour (
    hour_ms INTEGER NOT NULL,
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    camera TEXT NOT NULL,
    frames INTEGER NOT NULL,
    detector INTEGER NOT NULL,
    second_look INTEGER NOT NULL,
    both INTEGER NOT NULL CHECK (both <= detector AND both <= second_look),
    PRIMARY KEY (hour_ms, site, device, camera)
) WITHOUT ROWID;

CREATE TABLE recall_mark (
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    camera TEXT NOT NULL,
    heard_at_ms INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    detector INTEGER NOT NULL,
    second_look INTEGER NOT NULL,
    both INTEGER NOT NULL,
    PRIMARY KEY (site, device, boot_id, camera)
) WITHOUT ROWID;

CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sighting (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('missed', 'found', 'overlooked', 'seen')),
    finding_id INTEGER NOT NULL REFERENCES finding (id),
    group_id INTEGER NOT NULL REFERENCES near_duplicate_group (id),
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    camera TEXT NOT NULL,
    label TEXT NOT NULL,
    model TEXT NOT NULL,
    captured_at_ms INTEGER NOT NULL,
    x1 REAL NOT NULL,
    y1 REAL NOT NULL,
    x2 REAL NOT NULL,
    y2 REAL NOT NULL,
    tags TEXT NOT NULL,
    drawn_per_hour REAL NOT NULL
);

CREATE UNIQUE INDEX sighting_missed ON sighting (group_id) WHERE kind = 'missed';

CREATE INDEX sighting_time ON sighting (captured_at_ms);

CREATE INDEX sighting_finding ON sighting (finding_id);

CREATE INDEX sighting_model ON sighting (model, captured_at_ms);

CREATE TABLE weak_spot (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    tags TEXT NOT NULL UNIQUE,
    manual INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('open', 'batched', 'annotated', 'trained', 'fixed', 'not_fixed', 'regressed')),
    opened_at_ms INTEGER NOT NULL,
    named_at_ms INTEGER NOT NULL
);

CREATE TABLE weak_spot_step (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    weak_spot_id INTEGER NOT NULL REFERENCES weak_spot (id),
    at_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    model TEXT NOT NULL,
    rate REAL,
    low REAL,
    high REAL,
    against REAL,
    missed INTEGER NOT NULL,
    found INTEGER NOT NULL,
    batch_id INTEGER REFERENCES batch (id),
    note TEXT NOT NULL,
    measured INTEGER NOT NULL
);

CREATE INDEX weak_spot_step_of ON weak_spot_step (weak_spot_id, id);

CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    size INTEGER NOT NULL,
    title TEXT NOT NULL,
    weak_spot_id INTEGER REFERENCES weak_spot (id),
    model TEXT NOT NULL,
    minutes REAL,
    forgotten INTEGER NOT NULL DEFAULT 0,
    forgotten_honeypots INTEGER NOT NULL DEFAULT 0,
    random INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE batch_member (
    batch_id INTEGER NOT NULL REFERENCES batch (id),
    rank INTEGER NOT NULL,
    event_id TEXT NOT NULL UNIQUE REFERENCES finding (event_id),
    group_id INTEGER NOT NULL REFERENCES near_duplicate_group (id),
    why TEXT NOT NULL,
    gain REAL NOT NULL,
    test INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, rank)
);

CREATE UNIQUE INDEX batch_member_group ON batch_member (group_id);

CREATE TABLE label_set (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id INTEGER REFERENCES batch (id),
    kind TEXT NOT NULL CHECK (kind IN ('person', 'review', 'machine')),
    annotator TEXT NOT NULL,
    label_pass TEXT NOT NULL,
    labels TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    source TEXT NOT NULL,
    minutes REAL
);

CREATE INDEX label_set_batch ON label_set (batch_id);

CREATE TABLE label_image (
    set_id INTEGER NOT NULL REFERENCES label_set (id),
    event_id TEXT NOT NULL REFERENCES finding (event_id),
    boxes BLOB NOT NULL,
    PRIMARY KEY (set_id, event_id)
) WITHOUT ROWID;

CREATE INDEX label_image_event ON label_image (event_id, set_id);

CREATE TABLE honeypot (
    batch_id INTEGER NOT NULL REFERENCES batch (id),
    event_id TEXT NOT NULL REFERENCES finding (event_id),
    rank INTEGER NOT NULL,
    boxes BLOB NOT NULL,
    PRIMARY KEY (batch_id, event_id)
) WITHOUT ROWID;

CREATE TABLE recheck (
    id INTEGER PRIMARY KEY,
    batch_id INTEGER NOT NULL REFERENCES batch (id),
    event_id TEXT NOT NULL REFERENCES finding (event_id),
    rank INTEGER NOT NULL,
    fault TEXT NOT NULL,
    label TEXT NOT NULL,
    x1 REAL,
    y1 REAL,
    x2 REAL,
    y2 REAL,
    score REAL NOT NULL,
    why TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    wrong INTEGER
);

CREATE UNIQUE INDEX recheck_of ON recheck (batch_id, at_ms, rank);

CREATE TABLE opinion (
    event_id TEXT NOT NULL REFERENCES finding (event_id),
    model TEXT NOT NULL,
    boxes BLOB NOT NULL,
    PRIMARY KEY (event_id, model)
) WITHOUT ROWID;

CREATE TABLE certificate (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    model TEXT NOT NULL,
    rule TEXT NOT NULL,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    images INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    wrong INTEGER NOT NULL,
    threshold REAL,
    share REAL NOT NULL,
    details TEXT NOT NULL
);

CREATE TABLE cvat_task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id INTEGER NOT NULL REFERENCES batch (id),
    label_pass TEXT NOT NULL,
    server TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0,
    pulled TEXT NOT NULL DEFAULT '{}'
);

CREATE INDEX cvat_task_of ON cvat_task (batch_id, label_pass, server);

CREATE TABLE dataset_version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at_ms INTEGER NOT NULL,
    digest TEXT NOT NULL,
    parent_id INTEGER REFERENCES dataset_version (id),
    weak_spot_id INTEGER,
    folder TEXT NOT NULL,
    recipe TEXT NOT NULL,
    train INTEGER NOT NULL,
    val INTEGER NOT NULL,
    test INTEGER NOT NULL,
    forgotten_at_ms INTEGER
);

CREATE TABLE dataset_image (
    version_id INTEGER NOT NULL REFERENCES dataset_version (id),
    event_id TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
    PRIMARY KEY (version_id, event_id)
) WITHOUT ROWID;

CREATE INDEX dataset_image_event ON dataset_image (event_id);

CREATE TABLE forgotten (
    id INTEGER PRIMARY KEY,
    site TEXT NOT NULL,
    device TEXT NOT NULL,
    before_ms INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    erased_at_ms INTEGER
)
"""

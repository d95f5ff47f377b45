"""From verdicts to the devices: which weights each camera uses now, what the verdicts propose, and sending it.

Law: sending changes nothing of a device's policy but the weights of the cameras that get better ones.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edge.contract.policy import WEIGHED, Policy, Weights, decode_policy
from edge.contract.samples import Reason
from hub.finding_verdicts import Camera, Judged
from hub.store import Store
from hub.witness_weights import Case, Proposal, case_of, proposals

MIN_SEVERITY: Final = 0.6  # what a device reports from on, unless its edge.toml or a policy says another


@dataclass(frozen=True, slots=True)
class Sent:
    """New weights in a device's policy."""

    camera: Camera
    before: Weights
    after: Weights


def propose(store: Store, judged: Judged) -> list[Proposal[Camera]]:
    """Return what the verdicts say of each camera that has one on a `missed` finding, in order of its names.

    A finding without a witness that has a weight has no severity that weights could change: it comes from another
    system, or from another model.
    """
    cases: defaultdict[Camera, list[Case]] = defaultdict(list)
    for one in judged.verdicts:
        finding = one.finding
        if finding.reason is Reason.MISSED and any(witness.kind in WEIGHED for witness in finding.witnesses):
            cases[one.camera].append(
                case_of(finding.witnesses, refuted=finding.refuted, right=one.right, at_ms=finding.captured_at_ms)
            )
    return proposals({camera: cases[camera] for camera in sorted(cases)}, weights_in_force(store))


def weights_in_force(store: Store) -> Mapping[Camera, Weights]:
    """Return the weights of every camera that a policy gives some: a device's own over its site's."""
    set_for = {(row.site, row.device): decode_policy(row.payload).weights for row in store.policies()}
    devices = {(word.site, word.device): word.cameras for word in store.device_words()}
    given: dict[Camera, Weights] = {}
    for site, device in sorted(devices.keys() | {place for place in set_for if place[1]}):
        for camera in devices.get((site, device), ()):
            if camera in set_for.get((site, ""), {}):
                given[site, device, camera] = set_for[site, ""][camera]
        for camera, weights in set_for.get((site, device), {}).items():
            given[site, device, camera] = weights
    return given


def send(store: Store, proposed: Sequence[Proposal[Camera]], *, now_ms: int) -> tuple[list[Sent], list[Camera]]:
    """Put the better weights into the policies of their devices; `hub serve` publishes them.

    Returns what was changed, and the cameras that were left out because their device, by its last heartbeat, has no
    such camera any more: it would refuse the whole policy.
    """
    known = {(word.site, word.device): word.cameras for word in store.device_words()}
    sent: list[Sent] = []
    gone: list[Camera] = []
    by_device: defaultdict[tuple[str, str], list[Proposal[Camera]]] = defaultdict(list)
    for one in proposed:
        if one.better:
            site, device, camera = one.camera
            if known.get((site, device)) and camera not in known[site, device]:
                gone.append(one.camera)
            else:
                by_device[site, device].append(one)
    for (site, device), better in by_device.items():
        new = {one.camera[2]: one.fitted for one in better}

        def edit(now: Policy, new: Mapping[str, Weights] = new) -> Policy:
            return msgspec.structs.replace(now, weights={**now.weights, **new})

        store.edit_policy(site, device, edit, now_ms=now_ms)
        sent += [Sent(one.camera, one.present, one.fitted) for one in better]
    return sent, gone

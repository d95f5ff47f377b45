"""What serves: one model, opened and warm, with a pipeline for each camera. It is taken up as a whole or not at all.

Opening is slow and happens in whatever thread wants it; edge.detection swaps one for another between two frames.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.config import EdgeConfig
from edge.detector.detector import Detector
from edge.frame import Image
from edge.pipeline import Pipeline
from edge.places import KnownPlaces, Place
from edge.policy import Rules
from edge.privacy import Redaction, person_class

WARM_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """A model and what looks through it.

    Attributes:
        number: of its slot; 0 is the model that the device was installed with.
        score_threshold: at or above it a box counts as detected.
        pipelines, redactions: by camera.
    """

    number: int
    detector: Detector
    score_threshold: float
    pipelines: Mapping[str, Pipeline]
    redactions: Mapping[str, Redaction]

    @property
    def release(self) -> str:
        """The release that serves."""
        return self.detector.card.release


def open_serving(config: EdgeConfig, detector: Detector, *, number: int = 0) -> Serving:
    """Return what serves with this detector, by the device's configuration.

    Raises `UnusableError` where the configuration asks for what the model has not.
    """
    wanted = config.model.score_threshold
    threshold = detector.score_threshold if wanted is None else wanted
    known = person_class(detector.labels)
    redactions = {
        camera.name: Redaction(ignore=camera.ignore, blur=config.privacy.blur, person_class=known)
        for camera in config.camera
    }
    pipelines = {
        name: Pipeline(
            detector=detector,
            score_threshold=threshold,
            mining=config.mining,
            seed=random.SystemRandom().getrandbits(32),
            redaction=redaction,
        )
        for name, redaction in redactions.items()
    }
    return Serving(number, detector, threshold, pipelines, redactions)


def follow(serving: Serving, rules: Rules) -> None:
    """Make its pipelines mine by the rules. Raises `UnusableError` for a label that the model has not."""
    for camera, pipeline in serving.pipelines.items():
        pipeline.adopt(rules.mining, rules.weights.get(camera))


def warm(detector: Detector, images: list[Image]) -> None:
    """Detect on pictures of the sizes that will come, so that the first frame finds everything in place."""
    for _ in range(WARM_ROUNDS):
        for image in images:
            detector.detect(image)


def move_places(old: Serving, new: Serving) -> None:
    """Give the places that are quiet for the old model to the new one, under its class ids.

    A place of a label that the new model has not is left behind.
    """
    labels = {label: index for index, label in enumerate(new.detector.labels)}
    ids = {index: labels[label] for index, label in enumerate(old.detector.labels) if label in labels}
    for camera, pipeline in old.pipelines.items():
        for kind, places in pipeline.places.items():
            moved = [Place(ids[at.class_id], at.xyxy, at.at_ms) for at in places.dump() if at.class_id in ids]
            new.pipelines[camera].places[kind].load(moved)


def places_of(serving: Serving) -> dict[str, Mapping[str, KnownPlaces]]:
    """Return camera -> kind -> the places that are quiet."""
    return {camera: pipeline.places for camera, pipeline in serving.pipelines.items()}


def running_words(detector: Detector) -> str:
    """Return how a model runs, as in `int8 on openvino in int8`."""
    return f"{detector.variant or 'the float32 file'} on {detector.runtime_name} in {detector.precision}"

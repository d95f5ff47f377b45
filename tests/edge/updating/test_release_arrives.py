"""A release as `hub release create` makes it, on a device: unpacked, measured, opened, and gone again. Real models."""

from pathlib import Path

import msgspec
import pytest

from edge.config import EdgeConfig, ModelConfig
from edge.detector.opening import find_starter
from edge.detector.tuned import read_tuned
from edge.opening import cache_path, open_slot
from edge.slot_work import accept, advance, assign, hold, roll_back
from edge.slots import SlotStore, broken_slots, models_folder
from edge.updating.judge import hold_golden, tune_on_arrival, way_of
from hub.repository import target_path
from tests.edge.detector.golden_models import SIZE, add_variant, golden_folder, scaled_scores
from tests.edge.updating.stand_ins import device_config, order_of
from tests.hub.signed import add_release, made_repository

pytestmark = pytest.mark.timeout(600)


def free_config(folder: Path, **model) -> EdgeConfig:
    """A device that leaves it to measuring how a model runs."""
    return msgspec.structs.replace(device_config(folder), model=ModelConfig(**model))


def taken(store: SlotStore, folder: Path, model: Path) -> Path:
    """Sign a model folder as the hub does, and take its archive up to `golden`; return the slot's folder."""
    repository = made_repository(folder)
    release = add_release(repository, model)
    archive = target_path(repository.folder, release.target, release.sha256)
    order = order_of(release.signed.number, release=release.signed.release)
    slots = advance(accept(assign(store.slots, order, now_ms=1), release.signed, now_ms=1), "verified", now_ms=1)
    store.write(slots)
    place = store.stage(archive, release.signed)
    store.write(advance(hold(slots, now_ms=1), "golden", now_ms=1))
    return place


@pytest.mark.slow
def test_a_release_with_variants_and_a_golden_set_is_taken_and_tuned(tmp_path: Path) -> None:
    """One variant is as good as the card's file; the other finds nothing, and may not be picked for its speed."""
    model = golden_folder(tmp_path / "model", count=3)
    add_variant(model, "good", (find_starter() / "starter.onnx").read_bytes())
    add_variant(model, "blind", scaled_scores(0.0))
    config = free_config(tmp_path)
    store = SlotStore(models_folder(config.data_dir), "starter")
    place = taken(store, tmp_path / "repository", model)
    sent = {path.relative_to(model): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == sent
    assert len(sent) == 8, "a card, three models, three pictures and their boxes"
    assert tune_on_arrival(config, place, seconds=2.0).outcome == "pass"
    tuned = read_tuned(place / "tuned.json")
    assert tuned.choice.variant in {"", "good"}
    assert tuned.golden
    assert hold_golden(config, place).outcome == "pass"
    detector = open_slot(config, place)
    assert (detector.variant or "", detector.runtime_name) == (tuned.choice.variant, tuned.choice.runtime)
    assert detector.input_size == SIZE
    assert list(broken_slots(store.folder, "starter")) == [], "what the device adds breaks no law"


def test_compiled_graphs_go_with_their_release(tmp_path: Path) -> None:
    """Both the daemon and the process that judges keep them where the release stands, and nowhere else."""
    model = golden_folder(tmp_path / "model", count=1)
    config = free_config(tmp_path, runtime="openvino", threads=1)
    store = SlotStore(models_folder(config.data_dir), "starter")
    place = taken(store, tmp_path / "repository", model)
    open_slot(config, place)
    assert list(cache_path(config, place).iterdir())
    assert Path(way_of(config, place).cache_dir) == cache_path(config, place)
    assert not cache_path(config).exists(), "that is the factory's"
    store.write(roll_back(store.slots, "it is blind", now_ms=1))
    assert store.prune() == (1,)
    assert not place.exists()

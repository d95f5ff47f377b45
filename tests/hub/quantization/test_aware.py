"""Quantization-aware fine-tuning: the weights come nearer to float32 through 8 bits, on the grids that there are."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hub.quantization.aware import fine_tuned
from hub.quantization.layers import grids, with_weights
from hub.quantization.vendors import by_nncf
from hub.train.centernet_loss import loss
from tests.hub.quantization.blobs import blob_model, picture


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensor(seed: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(picture(seed)[0], np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32))


def run(model: onnx.ModelProto, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.stack([session.run(["heatmap"], {"images": image})[0] for image in images])


def test_it_comes_nearer_to_float32_on_the_same_grids(tmp_path):
    path = blob_model(tmp_path / "m", outlier=8.0) / "blobs.onnx"
    original = onnx.load(path)
    images = [tensor(seed) for seed in range(16)]
    quantized = by_nncf(original, "images", images)
    weights = fine_tuned(path, quantized=quantized, original=original, tensors=images, head=loss, classes=1, steps=60)
    tuned = with_weights(quantized, original, weights)
    meant, plain, aware = (run(model, images) for model in (original, quantized, tuned))
    assert np.square(aware - meant).mean() < np.square(plain - meant).mean()
    before, after = grids(quantized, original), grids(tuned, original)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[place].scale, after[place].scale) for place in before)


def test_no_step_is_what_the_vendor_made(tmp_path):
    path = blob_model(tmp_path / "m") / "blobs.onnx"
    original = onnx.load(path)
    images = [tensor(seed) for seed in range(4)]
    quantized = by_nncf(original, "images", images)
    weights = fine_tuned(path, quantized=quantized, original=original, tensors=images, head=loss, classes=1, steps=0)
    same = with_weights(quantized, original, weights)
    np.testing.assert_array_equal(run(same, images), run(quantized, images))

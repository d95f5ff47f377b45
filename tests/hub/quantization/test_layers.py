"""Layers of quantized files: the way back to float, and other weights on the same grids. Both vendors."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from hub.quantization.layers import float_weights, grids, is_quantized, layers, put_back, with_weights
from hub.quantization.vendors import by_nncf, by_onnxruntime, read_float
from tests.hub.quantization.blobs import SIDE, blob_model

RNG = np.random.default_rng(1)
TENSORS = [RNG.uniform(0, 255, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return onnx.load(blob_model(tmp_path_factory.mktemp("models") / "m") / "blobs.onnx")


@pytest.fixture(scope="module", params=[by_nncf, by_onnxruntime])
def quantized(request, original):
    return request.param(original, "images", TENSORS)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["heatmap", "wh"], {"images": TENSORS[0]})


def test_all_put_back_is_the_original(original, quantized):
    every = {node for layer in layers(quantized, original) for node in layer.nodes}
    back = put_back(quantized, original, every)
    assert not is_quantized(back)
    assert sorted(node.output[0] for node in back.graph.node) == sorted(node.output[0] for node in original.graph.node)
    for ours, theirs in zip(run(back), run(original), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_one_put_back_leaves_the_others_in_8_bits(original, quantized):
    known = layers(quantized, original)
    assert len(known) > 1
    some = put_back(quantized, original, set(known[0].nodes))
    assert [layer.name for layer in layers(some, original)] == [layer.name for layer in known[1:]]
    before, after = grids(quantized, original), grids(some, original)
    assert after.keys() == {place for place in before if place[0] not in known[0].nodes}


def test_the_same_weights_are_the_same_file(original, quantized):
    weights = {one.name: numpy_helper.to_array(one) for one in original.graph.initializer}
    again = with_weights(quantized, original, weights | float_weights(quantized, original))
    for ours, theirs in zip(run(again), run(quantized), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_other_weights_arrive(original, quantized):
    weights = {"heat": np.zeros((1, 4, 1, 1), np.float32)}
    changed = with_weights(quantized, original, weights)
    heatmap = run(changed)[0]
    assert np.ptp(heatmap) < 1e-6  # what is left is the bias alone
    assert np.ptp(run(quantized)[0]) > 0.01


@pytest.mark.parametrize("vendor", [by_nncf, by_onnxruntime])
def test_a_file_of_an_older_opset_is_brought_forward(tmp_path, vendor):
    """Exports of opset 11 are common; one scale a channel needs 13."""
    path = blob_model(tmp_path / "m", opset=11) / "blobs.onnx"
    model = read_float(path)
    made = vendor(model, "images", TENSORS)
    assert len(layers(made, model)) > 1
    for ours, theirs in zip(run(put_back(made, model, set())), run(onnx.load(path)), strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 0.1 * max(1.0, np.abs(theirs).max())

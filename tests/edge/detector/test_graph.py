"""The ONNX reader: what it reads, and that nothing broken gets past it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.detector.graph import Port, read_graph
from edge.detector.opening import find_starter
from tests.edge.detector.made_graphs import save_graph

STARTER = find_starter() / "starter.onnx"


def test_it_reads_what_onnx_reads():
    graph = read_graph(STARTER, STARTER.read_bytes())
    known = onnx.load(STARTER)
    assert graph.inputs == (Port("images", "float32", (None, 3, None, None)),)
    assert [port.name for port in graph.outputs] == [port.name for port in known.graph.output]
    assert graph.metadata == {entry.key: entry.value for entry in known.metadata_props}


def test_weights_among_the_inputs_are_left_out(tmp_path):
    path = save_graph(tmp_path / "old.onnx", {"o": np.zeros((1, 3), np.float32)})
    model = onnx.load(path)
    # as IR version 3 wrote it
    model.graph.input.append(onnx.helper.make_tensor_value_info("zero", onnx.TensorProto.FLOAT, []))
    graph = read_graph(path, model.SerializeToString())
    assert [port.name for port in graph.inputs] == ["images"]


@given(length=st.integers(0, 4000))
def test_a_file_that_is_cut_short_is_refused(length):
    content = STARTER.read_bytes()
    with pytest.raises(UnusableError, match="not an ONNX model, or it is cut short"):
        read_graph(STARTER, content[: min(length * 2000, len(content) - 1)])


@given(content=st.binary(max_size=300))
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(UnusableError, match="not an ONNX model"):
        read_graph(Path("noise.onnx"), content)


HINTS = [
    # what people have at hand instead
    ("yolo11n.pt", "export it to ONNX"),
    ("model.engine", "ONNX file it was built from"),
    ("model.xml", "OpenVINO"),
]


@pytest.mark.parametrize(("name", "hint"), HINTS)
def test_other_formats_are_named(name, hint):
    with pytest.raises(UnusableError, match=hint):
        read_graph(Path(name), b"PK\x03\x04 something else")

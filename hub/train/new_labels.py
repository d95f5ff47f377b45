"""A label that the model does not have: one more row in the layers that score the classes.

Laws:

1. What the model says of its own labels stays as it is.
2. The new label starts low: where the label that it is like, or the mean of all, scores .9, it scores about .14. It is
   found once it has been taught.
3. The rows are found by the graph, never by names, and what was made is run before it is written. A graph where they
   are not plain is refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edge.contract.card import HeadName
from edge.contract.errors import UnusableError
from hub.train.graph_file import Array, constant_tensors, write_model

LOWER: Final = 4.0  # in log odds
_BOX_ROWS: Final = 4
_FIXED_COLUMNS: Final = 5
_ONE_BY_ONE: Final = frozenset({"Sigmoid", "Identity", "Cast", "Clip"})


def add_label(
    model_path: Path,
    out_path: Path,
    *,
    head: HeadName | None,
    labels: tuple[str, ...],
    new_label: str,
    like: str | None = None,
) -> tuple[str, ...]:
    """Write the model with one more label, the last, and return all labels for its card.

    The new rows are those of the label that it is `like`, else the mean of all. Raises `UnusableError` when the label
    is there already, `like` is not, or the rows are not found; nothing is written then.
    """
    if new_label in labels:
        msg = f"the model has the label {new_label} already"
        raise UnusableError(msg)
    if like is not None and like not in labels:
        msg = f"the new label cannot be like {like}: the model has {', '.join(labels)}"
        raise UnusableError(msg)
    if head not in {"centernet", "yolox"}:
        msg = f"a new label can be given to the heads centernet and yolox, not to {head}"
        raise UnusableError(msg)
    model = _Model(model_path)
    convs = model.heatmap_conv(len(labels)) if head == "centernet" else model.class_convs(len(labels))
    for conv in convs:
        model.grow(conv, similar=None if like is None else labels.index(like))
    if head == "yolox":
        model.widen(after=convs, columns=_FIXED_COLUMNS + len(labels))
    all_labels = (*labels, new_label)
    model.tell(all_labels)
    beside = out_path.with_name(f".{out_path.name}.grown")
    try:
        write_model(model.proto, beside)
        _prove(model_path, beside, axis=1 if head == "centernet" else 2)
        beside.replace(out_path)
    finally:
        beside.unlink(missing_ok=True)
    return all_labels


def _prove(before: Path, after: Path, *, axis: int) -> None:
    """Run both files on one picture: all that was said before is said, and one output says one thing more."""
    import torch

    from hub.train.graph import TorchGraph

    old, new = TorchGraph.open(before, trained=False), TorchGraph.open(after, trained=False)
    picture = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, _picture_shape(before)).astype(np.float32))
    was, is_now = old(picture), new(picture)
    wider = 0
    for name, values in was.items():
        grown = is_now[name].shape[axis] - values.shape[axis] if values.ndim > axis else 0
        same = is_now[name].narrow(axis, 0, values.shape[axis]) if grown == 1 else is_now[name]
        wider += grown
        if same.shape != values.shape or not torch.allclose(same, values, rtol=1e-4, atol=1e-5):
            wider = -len(was)
    if wider != 1:
        msg = f"{before}: with one more row the outputs are not what they were; no label can be added to this graph"
        raise UnusableError(msg)


def _picture_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of one picture, where the file fixes it, else of a small one."""
    from edge.detector.opening import read_model

    _, *sizes = read_model(path).image.shape
    free = (64, 96, 3) if sizes[2] == 3 and sizes[0] != 3 else (3, 64, 96)
    return 1, *(size or default for size, default in zip(sizes, free, strict=True))


def _put(tensor: Any, array: Array) -> None:
    """Give a constant another value."""
    name, told = tensor.name, tensor.doc_string
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    tensor.doc_string = told


class _Model:
    """A graph whose class rows are looked for and grown."""

    def __init__(self, path: Path) -> None:
        from hub.train.graph import TorchGraph

        self.path = path
        TorchGraph.open(path, trained=False)  # it must be one that can be trained
        self.proto = onnx.load(str(path))
        self._tensors = constant_tensors(self.proto)
        self._maker = {name: node for node in self.proto.graph.node for name in node.output if name}
        self._readers: dict[str, list[Any]] = {}
        for node in self.proto.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._ends = [port.name for port in self.proto.graph.output]

    def heatmap_conv(self, labels: int) -> list[Any]:
        """Return the convolution whose rows are the heatmap's channels."""
        sources = {name: self._source(name) for name in self._ends}
        fitting = {name: conv for name, conv in sources.items() if self._rows(conv) == labels}
        if "heatmap" in fitting:  # four labels have as many rows as the four sides
            fitting = {"heatmap": fitting["heatmap"]}
        return self._only_if(list(fitting.values()), right=len(fitting) == 1, labels=labels)

    def class_convs(self, labels: int) -> list[Any]:
        """Return the convolution of each level whose rows are the classes: the last of box, objectness, classes."""
        found = []
        for node in self.proto.graph.node:
            parts = [self._source(name) for name in node.input] if node.op_type == "Concat" else []
            if [self._rows(part) for part in parts] == [_BOX_ROWS, 1, labels]:
                found.append(parts[2])
        return self._only_if(found, right=len(found) in {3, 4}, labels=labels)

    def grow(self, conv: Any, *, similar: int | None) -> None:
        """Give a convolution one more row."""
        for name, lower in ((conv.input[1], 0.0), (conv.input[2], LOWER)):
            old = numpy_helper.to_array(self._tensors[name])
            wide = old.astype(np.float32)
            row = (wide.mean(axis=0) if similar is None else wide[similar]) - np.float32(lower)
            _put(self._tensors[name], np.concatenate([old, row[None].astype(old.dtype)]))

    def widen(self, *, after: list[Any], columns: int) -> None:
        """Let the shapes that follow the class rows have one column more."""
        below = list(self._below(after))
        widened: set[str] = set()
        sizes_of = {"Reshape": {columns}, "Slice": {columns}, "Split": {columns - 4, columns - 5}}
        for node in below:
            wanted = sizes_of.get(node.op_type, set())
            for name in node.input[1:] if wanted else ():
                if name in widened or name not in self._tensors:
                    continue
                sizes = numpy_helper.to_array(self._tensors[name]).copy()
                places = [at for at, size in enumerate(sizes.reshape(-1).tolist()) if size in wanted]
                if not places:
                    continue
                if any(reader not in below for reader in self._readers[name]):
                    msg = f"{self.path}: the shape {name} is used elsewhere too; no label can be added"
                    raise UnusableError(msg)
                sizes.reshape(-1)[places[-1]] += 1
                _put(self._tensors[name], sizes)
                widened.add(name)

    def tell(self, labels: tuple[str, ...]) -> None:
        """Let outputs and metadata say what there is now, and forget the sizes of what is between."""
        del self.proto.graph.value_info[:]
        for port in self.proto.graph.output:
            sizes = port.type.tensor_type.shape.dim
            if len(sizes) == 4 and self._rows(self._source(port.name)) == len(labels):
                sizes[1].dim_value = len(labels)
            elif len(sizes) == 3 and sizes[2].dim_value == len(labels) - 1 + _FIXED_COLUMNS:
                sizes[2].dim_value += 1
        for entry in self.proto.metadata_props:
            if entry.key == "names":
                entry.value = repr(dict(enumerate(labels)))

    def _source(self, name: str) -> Any | None:
        """Return the convolution that a value comes from one by one, and that nothing else reads."""
        node = self._maker.get(name)
        while node is not None and node.op_type in _ONE_BY_ONE:
            if len(self._readers.get(node.input[0], [])) != 1 or node.input[0] in self._ends:
                return None
            node = self._maker.get(node.input[0])
        return node if node is not None and node.op_type == "Conv" else None

    def _rows(self, conv: Any | None) -> int:
        """Return how many rows of weights and biases a plain convolution has of its own, else 0."""
        if conv is None or len(conv.input) != 3:
            return 0
        group = next((entry.i for entry in conv.attribute if entry.name == "group"), 1)
        own = all(name in self._tensors and len(self._readers[name]) == 1 for name in conv.input[1:])
        return int(self._tensors[conv.input[1]].dims[0]) if own and group == 1 else 0

    def _below(self, nodes: list[Any]) -> Iterator[Any]:
        """Yield every node that comes after these."""
        reached = {name for node in nodes for name in node.output}
        for node in self.proto.graph.node:
            if reached & set(node.input):
                reached |= set(node.output)
                yield node

    def _only_if(self, found: list[Any], *, right: bool, labels: int) -> list[Any]:
        if not right:
            msg = (
                f"{self.path}: the rows of the {labels} labels are not found; a new label needs a convolution of "
                f"its own with {labels} rows and a bias, right before each output of scores"
            )
            raise UnusableError(msg)
        return found

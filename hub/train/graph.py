"""An ONNX graph as a function of PyTorch: the released file's own constants are the parameters.

Laws:

1. With unchanged parameters the function gives what ONNX Runtime gives, to 1e-3, for every picture of a batch.
2. What is written is the same file but for the parameters. See `hub.train.graph_file`, which says what is a parameter.
3. What cannot be trained through is said when the graph is opened, with its node.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edge.contract.errors import UnusableError
from hub.train.graph_file import GraphFile, read_graph_file, with_weights, write_model
from hub.train.graph_node import Node
from hub.train.lesson import Floats, Tensor
from hub.train.operators import OPERATORS, objection

Seen = Callable[[str, str, Tensor], Tensor]
"""What a node reads: the first output of the node, the tensor's name and the tensor; returns what the node gets."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One node, its operator, and the values that nobody reads after it."""

    node: Node
    operator: Callable[..., Tensor]
    over: tuple[str, ...]


class TorchGraph:
    """A graph that can be trained.

    Attributes:
        path: the file it was read from.
        input_name: of the picture's input.
        output_names: in the file's order.
    """

    def __init__(self, path: Path, file: GraphFile, *, trained: bool) -> None:
        self.path = path
        self.input_name = file.input_name
        self.output_names = file.output_names
        self._file = file
        self._trained = trained
        self._parameters: dict[str, Tensor] = {
            name: torch.from_numpy(file.constants[name].copy()).requires_grad_(trained) for name in file.learned
        }
        fixed = set(file.constants) - set(file.learned)
        self._constants: dict[str, Tensor] = {name: torch.from_numpy(file.constants[name].copy()) for name in fixed}
        self._steps = self._folded([node for node, _ in file.nodes])

    @classmethod
    def open(cls, path: Path, *, trained: bool = True) -> "TorchGraph":
        """Read an ONNX file. With `trained=False` the parameters take no gradient: the old model.

        Raises `UnusableError` that names the operator and its node when one cannot be trained through, when nothing in
        it is learned, or when the file cannot be read.
        """
        file = read_graph_file(path)
        for node, domain in file.nodes:
            if reason := objection(node, domain):
                msg = f"{path} cannot be trained: node {node.name} ({node.kind}): {reason}"
                raise UnusableError(msg)
        if not file.learned:
            msg = f"{path} cannot be trained: it has no weights"
            raise UnusableError(msg)
        return cls(path, file, trained=trained)

    def parameters(self) -> list[Tensor]:
        """Return what is trained, in the file's order."""
        return list(self._parameters.values())

    def named(self) -> dict[str, Tensor]:
        """Return what is trained by the constants' names, float32."""
        return dict(self._parameters)

    def __call__(self, images: Tensor, *, seen: Seen | None = None) -> dict[str, Tensor]:
        """Run `images` `[n, ...]`, float32, and return the outputs by name, each `[n, ...]`.

        `seen` changes what a node reads: quantization-aware training rounds there.

        Raises `UnusableError` with the node when the graph does not take this size or more than one picture, and
        `MemoryError` when there is not enough memory.
        """
        with torch.set_grad_enabled(self._trained and torch.is_grad_enabled()):
            # channels last: a third less processor time for the starter, forward and back
            picture = images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
            values: dict[str, Tensor] = {**self._constants, **self._parameters, self.input_name: picture}
            for step in self._for(len(images)):
                self._run(step, values, seen=seen)
            outputs = {name: values[name] for name in self.output_names}
        for name, output in outputs.items():
            if len(images) > 1 and output.ndim and output.shape[0] != len(images):
                msg = f"{self.path}: {len(images)} pictures give {name} {list(output.shape)}; export it for any batch"
                raise UnusableError(msg)
        return outputs

    def state(self) -> dict[str, Floats]:
        """Return copies of the parameters by name."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self._parameters.items()}

    def load(self, state: Mapping[str, Floats]) -> None:
        """Take parameters over. Raises `UnusableError` when they are not those of this graph."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self._parameters.items()}
        if {name: array.shape for name, array in state.items()} != shapes:
            msg = f"these weights are not those of {self.path}"
            raise UnusableError(msg)
        with torch.no_grad():
            for name, tensor in self._parameters.items():
                tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[name], np.float32)))

    def write(self, path: Path) -> None:
        """Write the file with the parameters as they are now. Raises `UnusableError` when one is not finite."""
        state = self.state()
        for name, array in state.items():
            if not np.isfinite(array).all():
                msg = f"the trained weight {name} is not finite; nothing is written"
                raise UnusableError(msg)
        write_model(with_weights(self._file.model, state), path)

    def _for(self, batch: int) -> tuple[_Step, ...]:
        """Return the steps for so many pictures."""
        if self._steps[0].node.batch != batch:
            self._steps = tuple(replace(step, node=replace(step.node, batch=batch)) for step in self._steps)
        return self._steps

    def _run(self, step: _Step, values: dict[str, Tensor], *, seen: Seen | None = None) -> None:
        """Run one node, and forget what nobody reads any more."""
        node = step.node
        read = [values[name] if name else None for name in node.inputs]
        if seen is not None:
            read = [
                one if one is None else seen(node.outputs[0], name, one)
                for name, one in zip(node.inputs, read, strict=True)
            ]
        try:
            result = step.operator(node, *read)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if "allocate" in reason:
                raise MemoryError(reason) from error
            msg = f"{self.path} does not take this input: node {node.name} ({node.kind}): {reason}"
            raise UnusableError(msg) from error
        made = result if isinstance(result, tuple) else (result,)
        values.update((name, value) for name, value in zip(node.outputs, made, strict=False) if name)
        for name in step.over:
            del values[name]

    def _folded(self, nodes: list[Node]) -> tuple[_Step, ...]:
        """Run once what only constants enter, and return the other steps."""
        left = []
        for node in nodes:
            if all(not name or name in self._constants for name in node.inputs):
                self._run(_Step(node, OPERATORS[node.kind], ()), self._constants)
            else:
                left.append(node)
        last: dict[str, int] = {}
        for at, node in enumerate(left):
            last |= dict.fromkeys((*filter(None, node.inputs), *filter(None, node.outputs)), at)
        kept = {*self._constants, *self._parameters, *self.output_names}
        over: list[list[str]] = [[] for _ in left]
        for name, at in last.items():
            if name not in kept:
                over[at].append(name)
        return tuple(_Step(node, OPERATORS[node.kind], tuple(names)) for node, names in zip(left, over, strict=True))

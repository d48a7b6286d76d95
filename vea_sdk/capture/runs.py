"""Which layer it is when an attention module runs: a looped decoder runs a module for several layers in one pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from vea_sdk.errors import CaptureError


class Runs:
    """Counts the runs of the modules of one pass. The n-th run of a module is the n-th of its layers."""

    def __init__(self, modules: Mapping[int, nn.Module], layers: Collection[int]) -> None:
        self._wanted = frozenset(layers)
        self._layers: dict[nn.Module, list[int]] = {modules[layer]: [] for layer in layers}
        for layer, module in sorted(modules.items(), key=lambda item: item[0]):
            if module in self._layers:
                self._layers[module].append(layer)
        self.seen: dict[nn.Module, int] = {}  # how often each has run in this pass

    @property
    def modules(self) -> Collection[nn.Module]:
        """The modules of the wanted layers, each once."""
        return self._layers.keys()

    @property
    def looped(self) -> bool:
        """Whether one of them runs more than once in a pass."""
        return any(len(layers) > 1 for layers in self._layers.values())

    def begin(self) -> None:
        """A pass begins."""
        self.seen.clear()

    def next(self, module: nn.Module) -> int | None:
        """The layer for which the module runs now, None where that one is not wanted."""
        seen, layers = self.seen.get(module, 0), self._layers[module]
        self.seen[module] = seen + 1
        if seen == len(layers):
            self.check(module, seen + 1)
        layer = layers[seen]
        return layer if layer in self._wanted else None

    def check(self, module: nn.Module, runs: int) -> None:
        """Raises CaptureError where a pass ran the module more often than it has layers."""
        layers = self._layers[module]
        if runs > len(layers):
            raise CaptureError(
                f"the attention module of layer {layers[0]} ({type(module).__name__}) ran {runs} times in one pass, "
                f"but is known for {len(layers)}. Let attention_modules() of an adapter name it once for every run, "
                "each under a layer number of its own, in the order in which they run."
            )

    def first(self, module: nn.Module) -> int:
        """The module's layer, where nothing is looped."""
        return self._layers[module][0]

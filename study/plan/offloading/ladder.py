"""Finds the mildest offload with which something fits: a ladder from nothing in host memory to everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from study.hardware.targets import Target
from study.plan.workload import Workload
from trainables.memory.offload import RESIDENT, Offload

Holds = Callable[[Offload], bool]


@dataclass(frozen=True)
class Permitted:
    """What may wait in host memory: of the layers at least `fewest` and at most `most`, and each of the other parts."""

    fewest: int = 0
    most: int = 0
    embedding: bool = False
    optimizer_state: bool = False
    layer_inputs: bool = False

    @classmethod
    def of(cls, workload: Workload, target: Target) -> Permitted:
        """What a study's `hardware.base_in_host_memory`, its training and its device let wait.

        On a CPU nothing is gained, so that only `always` streams there. Without gradient checkpointing each layer keeps
        what its backward pass reads, weights among it: neither layers nor their inputs can wait.
        """
        asked, again = workload.base_in_host_memory, workload.training.gradient_checkpointing
        fewest = workload.shape.layers if again and asked == "always" else 0
        if target.card is None:
            return cls(fewest, fewest)
        streams = again and asked != "never"
        untied = not workload.shape.tie_word_embeddings
        return cls(fewest, workload.shape.layers if streams else 0, streams and untied, True, again)

    @property
    def first(self) -> Offload:
        """What waits in any case."""
        return Offload(layers=self.fewest)

    @property
    def everything(self) -> Offload:
        """All that may wait: the fewest bytes on the card."""
        return Offload(self.most, self.embedding, self.optimizer_state, self.layer_inputs)

    def beside(self, one: Offload) -> Iterator[Offload]:
        """The offload, then with moments in host memory too, with layers' inputs, and with both, where they may be."""
        states, inputs = replace(one, optimizer_state=True), replace(one, layer_inputs=True)
        yield one
        if self.optimizer_state:
            yield states
        if self.layer_inputs:
            yield inputs
        if self.optimizer_state and self.layer_inputs:
            yield replace(states, layer_inputs=True)


def mildest(permitted: Permitted, on_card: Holds, in_host: Holds, price: Callable[[Offload], Any]) -> Offload | None:
    """Returns the cheapest permitted offload that the card and its host memory hold; None where there is none.

    The rungs: nothing; moments; layers' inputs; both. Then streamed layers, the fewest that fit with each of these, of
    which the least `price` is taken; with the embedding only where none fits without, and then layers or none. So each
    part that waits is needed: moments that are smaller than the buffers they come through, or no more layers than have
    buffers, help nobody. More layers must never take more of a card, less of host memory, or less time.
    """
    if not permitted.fewest:
        for rung in permitted.beside(RESIDENT):
            if on_card(rung) and in_host(rung):
                return rung
    most = Offload(layers=permitted.most, embedding=permitted.embedding)
    if not any(map(on_card, permitted.beside(most))):
        return None
    for embedding in (False, True)[: 1 + permitted.embedding]:
        kinds = permitted.beside(Offload(embedding=embedding))
        streamed = (fewest_layers(kind, permitted, on_card) for kind in kinds)
        found = [one for one in streamed if one and in_host(one)]
        if found:
            return min(found, key=price)
    return None


def held_by_card(permitted: Permitted, on_card: Holds) -> list[Offload]:
    """Lists the offloads with which the card holds it, whatever host memory does: of streamed layers the fewest."""
    rungs = [] if permitted.fewest else list(permitted.beside(RESIDENT))
    kinds = [
        kind
        for embedding in (False, True)[: 1 + permitted.embedding]
        for kind in permitted.beside(Offload(embedding=embedding))
    ]
    streamed = (fewest_layers(kind, permitted, on_card) for kind in kinds)
    return [one for one in rungs if on_card(one)] + [one for one in streamed if one]


def fewest_layers(kind: Offload, permitted: Permitted, on_card: Holds) -> Offload | None:
    """Returns the offload with the fewest streamed layers that the card holds, by bisection; None where none does.

    At least one, unless the embedding waits: what waits without either is on a rung of its own.
    """
    low, high = max(0 if kind.embedding else 1, permitted.fewest), permitted.most
    if high < low or not on_card(replace(kind, layers=high)):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if on_card(replace(kind, layers=middle)) else (middle + 1, high)
    return replace(kind, layers=low)

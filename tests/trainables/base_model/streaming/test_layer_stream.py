"""The stream of layers: on a processor, and on a made-up card whose two queues run in any order that events allow."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainables.base_model.streaming.test_buffer_choice import walk_of
from trainables.base_model.streaming import layer_stream
from trainables.base_model.streaming.buffer_choice import Buffers
from trainables.base_model.streaming.copy_lane import CardLane
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.base_model.streaming.layer_stream import LayerStream, LayerStreams

CPU = torch.device("cpu")


def blocks_of(layers: dict[int, nn.Linear]) -> dict[int, LayerBlock]:
    return {number: LayerBlock(layer, CPU, pinned=False) for number, layer in layers.items()}


def test_a_layer_that_is_asked_for_has_its_own_weights_and_few_others_are_there() -> None:
    layers = {number: nn.Linear(8, 4 + number).requires_grad_(False) for number in (1, 3, 4, 6, 7)}
    weights = {number: layer.weight.clone() for number, layer in layers.items()}
    stream = LayerStream(blocks_of(layers))
    for number in walk_of(random.Random(0), 9):
        stream.use(number)
        if number in layers:
            assert torch.equal(layers[number].weight, weights[number])
        there = [place for place, layer in layers.items() if not layer.weight.isnan().all()]
        assert all(torch.equal(layers[place].weight, weights[place]) for place in there)
        assert len(there) <= 3
    assert stream.buffer_bytes == 3 * max(block.nbytes for block in stream._blocks.values())


@pytest.mark.parametrize("layers", [4, 7])
def test_once_a_pass_has_been_seen_no_layer_is_waited_for_and_each_is_copied_no_more_than_it_must(layers: int) -> None:
    up = list(range(layers))
    for one in (up, [*up, *up[-2:0:-1]]):  # a forward pass; a forward and a backward one
        streams = LayerStreams(blocks_of({number: nn.Linear(8, 8).requires_grad_(False) for number in up}))
        for _ in range(3):
            before = streams.traffic
            for layer in one:
                streams.use(layer)
        now = streams.traffic
        assert now.late_copies == before.late_copies
        assert now.copies - before.copies <= len(one)
        assert now.copied_bytes == now.copies * 512


def test_few_layers_are_copied_once_and_stay() -> None:
    streams = LayerStreams(blocks_of({number: nn.Linear(8, 8).requires_grad_(False) for number in (0, 2)}))
    for layer in (0, 1, 2, 2, 1, 0, 0, 1, 2):
        streams.use(layer)
    assert (streams.traffic.copies, streams.buffer_bytes) == (2, 2 * 512)
    assert LayerStreams({}).traffic.copies == 0


def test_each_card_has_a_stream_and_a_layer_on_one_ends_the_turn_of_the_others() -> None:
    layers = [nn.Linear(8, 8).requires_grad_(False) for _ in range(10)]
    weights = [layer.weight.clone() for layer in layers]
    cards = [CPU, torch.device("cpu", 0)]  # two devices by their names
    blocks = {number: LayerBlock(layer, cards[number // 5], pinned=False) for number, layer in enumerate(layers)}
    streams = LayerStreams(blocks)
    assert streams.buffer_bytes == 2 * 3 * 512
    for number in (*range(10), *reversed(range(10))):
        streams.use(number)
        assert torch.equal(layers[number].weight, weights[number])
        assert [stream._at_work for stream in streams._streams].count(None) == 1


class Event:
    """A CUDA event: a wait is for the latest record at the time of the call."""

    def __init__(self) -> None:
        self.ticket: list[bool] = [True]

    def record(self, queue: Queue) -> None:
        self.ticket = ticket = [False]
        queue.work.append((lambda: True, lambda: ticket.__setitem__(0, True)))


class Queue:
    """A CUDA stream: work runs in order, each piece once it may."""

    def __init__(self, device: Any = None) -> None:
        self.work: list[tuple[Callable[[], bool], Callable[[], None]]] = []

    def wait_event(self, event: Event) -> None:
        ticket = event.ticket
        self.work.append((lambda: ticket[0], lambda: None))

    def then(self, act: Callable[[], None]) -> None:
        self.work.append((lambda: True, act))


class Card:
    """Two queues and what the buffers hold; `wrong` notes each layer that computed with another's bytes."""

    def __init__(self) -> None:
        self.compute = self.current = Queue()
        self.queues = [self.compute]
        self.held: dict[int, int | None] = {}
        self.wrong: list[int] = []

    def stream(self, device: Any) -> Queue:
        self.queues.append(Queue())
        return self.queues[-1]

    def stands_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Takes the place of CUDA, and its lane that of the processor's."""
        monkeypatch.setattr(layer_stream, "lane_to", CardLane)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "Stream", self.stream)
        monkeypatch.setattr(torch.cuda, "stream", self.using)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.compute)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda buffer, queue: None)

    @contextmanager
    def using(self, queue: Queue) -> Iterator[None]:
        before, self.current = self.current, queue
        yield
        self.current = before

    def computes(self, layer: int, buffer: int) -> None:
        """Queues a layer's work, which takes a while."""

        def check() -> None:
            if self.held.get(buffer) != layer:
                self.wrong.append(layer)

        for _ in range(3):
            self.compute.then(check)

    def run(self, draw: random.Random, pieces: int) -> None:
        for _ in range(pieces):
            ready = [queue for queue in self.queues if queue.work and queue.work[0][0]()]
            if not ready:
                return
            draw.choice(ready).work.pop(0)[1]()


class Block:
    """Stands for a layer's block on the made-up card."""

    device, nbytes = CPU, 512

    def __init__(self, layer: int, card: Card) -> None:
        self.layer, self.card = layer, card
        self.buffer: int | None = None

    def copy_to(self, buffer: torch.Tensor) -> None:
        for held in (None, self.layer):  # first neither the one nor the other
            self.card.current.then(lambda held=held: self.card.held.__setitem__(id(buffer), held))

    def show_in(self, buffer: torch.Tensor) -> None:
        self.buffer = id(buffer)

    def hide(self) -> None:
        self.buffer = None


def layers_that_went_wrong(monkeypatch: pytest.MonkeyPatch, seeds: int = 25) -> int:
    """Counts those of random walks whose layers computed with others' bytes, the queues at random speeds."""
    wrong = 0
    for seed in range(seeds):
        draw, card = random.Random(seed), Card()
        card.stands_in(monkeypatch)
        layers = draw.randint(2, 8)
        blocks: Any = {number: Block(number, card) for number in range(layers)}
        stream = LayerStream(blocks, buffers=draw.randint(1, 4))
        for number in walk_of(draw, layers + 1):  # the last one is resident
            stream.use(number)
            if number in blocks:
                card.computes(number, blocks[number].buffer)
            card.run(draw, draw.choice([0, 0, 3, 30]))
        card.run(draw, 10**6)
        assert not any(queue.work for queue in card.queues), "each waits for the other"
        wrong += bool(card.wrong)
    return wrong


def test_on_a_card_no_layer_computes_with_anothers_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layers_that_went_wrong(monkeypatch) == 0


@pytest.mark.parametrize("fault", ["no wait for the copy", "no wait for the work", "the buffer of the layer at work"])
def test_a_planted_fault_shows_on_the_made_up_card(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "no wait for the copy":
        monkeypatch.setattr(CardLane, "await_copy", lambda self, buffer: None)
    elif fault == "no wait for the work":
        monkeypatch.setattr(CardLane, "work_is_queued", lambda self, buffer: None)
    else:
        monkeypatch.setattr(Buffers, "free", property(lambda self: self.order[-1]))
    assert layers_that_went_wrong(monkeypatch) > 0

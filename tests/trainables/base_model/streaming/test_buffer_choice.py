"""Which buffer a layer goes to, and which layer is expected: over random walks, without a card."""

from __future__ import annotations

import random

import pytest

from trainables.base_model.streaming.buffer_choice import Buffers, Travel


def walk_of(draw: random.Random, layers: int) -> list[int]:
    """Layers as trainings, evaluations and whatever else ask for them."""
    up = list(range(layers))
    kinds = [up, up + up[::-1], up + up[draw.randrange(layers) :][::-1], [draw.randrange(layers) for _ in range(5)]]
    return [layer for _ in range(12) for layer in draw.choice(kinds)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_layer_stays_while_it_is_at_work_and_the_one_before_where_there_is_room(count: int) -> None:
    """Against a model that knows nothing but which layers were asked for, in which order."""
    for seed in range(60):
        draw = random.Random(seed)
        layers = draw.randint(1, 9)
        buffers, asked = Buffers.empty(count), []
        for layer in walk_of(draw, layers):
            buffers = buffers.released()
            if (buffer := buffers.holding(layer)) is None:
                assert buffers.free is not None
                buffer, buffers = buffers.free, buffers.filled(buffers.free, layer)
            buffers = buffers.working(buffer)
            asked.append(layer)
            ahead = draw.randrange(layers)
            if buffers.holding(ahead) is None and buffers.free is not None:
                buffers = buffers.filled(buffers.free, ahead)
            assert buffers.at_work is not None
            assert buffers.layers[buffers.at_work] == layer
            assert buffers.free != buffers.at_work
            distinct = list(dict.fromkeys(reversed(asked)))[: 2 if count >= 3 else 1]
            assert {*distinct} <= {*buffers.layers}
            assert sorted(buffers.order) == list(range(count))


def expected(passes: list[list[int]], layers: int) -> list[tuple[int, int | None]]:
    """Each layer of the last pass with the one that was expected after it."""
    travel = Travel(range(layers))
    return [[(layer, travel.to(layer)) for layer in one] for one in passes][-1]


@pytest.mark.parametrize("layers", [2, 3, 6])
def test_the_next_layer_is_expected_in_the_direction_of_travel_and_at_its_ends_as_the_last_time(layers: int) -> None:
    up = list(range(layers))
    first, back = [(place, place + 1) for place in up[:-1]], (layers - 1, layers - 2)
    assert expected([up], layers) == [*first, back]
    assert expected([up, up], layers)[-1] == (layers - 1, 0)  # evaluation after evaluation, token after token
    training = [*up, *up[-2::-1]]
    after = [layer for _, layer in expected([training, training[1:]], layers)]
    assert after == [*training[2:], 1]


def test_one_layer_expects_no_other() -> None:
    assert Travel([4]).to(4) is None

"""Which rows share a batched product."""

import math

import torch

from search_spaces.footprint import Footprint
from tests.support.lora_cases import lora_config
from tests.support.small_models import tiny_llama
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.pack import Pack, padding_pays
from trainables.packed.packed_model import PackedModel

MODEL = PackedModel(tiny_llama(layers=2))
CPU = torch.device("cpu")
QKV = tuple(f"model.layers.0.self_attn.{leaf}_proj" for leaf in "qkv")
DOWN = ("model.layers.0.mlp.down_proj",)


def adapter(**changes) -> LoraAdapter:
    return MODEL.new_adapter(lora_config(**changes))


def rows(*counted: tuple[LoraAdapter, int], key: int | None = None) -> list[PackedRows]:
    """Members with so many rows each, one after the other."""
    packed, first = [], 0
    for one, count in counted:
        packed.append(PackedRows(one, slice(first, first + count), None, key))
        first += count
    return packed


def test_neighbours_of_equal_rank_and_targets_share_a_run() -> None:
    small, other = adapter(rank=2, target_modules="q_v"), adapter(rank=2, target_modules="q_v", lora_alpha=3.0)
    large, all_linear = adapter(rank=8, target_modules="q_v"), adapter(rank=8)
    runs = Pack(rows((small, 2), (other, 2), (large, 1), (all_linear, 3))).runs(QKV, CPU)
    assert [(run.rows.start, run.rows.stop) for run in runs] == [(0, 4), (4, 5), (5, 8)]
    assert [run.places for run in runs] == [(0, 2), (0, 2), (0, 1, 2)]
    assert runs[0].adapters == [small, other]
    assert runs[0].scales.flatten().tolist() == [8.0, 1.5]
    (last,) = Pack(rows((small, 2), (all_linear, 3))).runs(DOWN, CPU)
    assert (last.rows.start, last.rows.stop) == (2, 5)


def test_units_are_as_large_as_row_counts_allow() -> None:
    first, second = adapter(seed=1), adapter(seed=2)
    (run,) = Pack(rows((first, 4), (second, 2), (first, 4))).runs(QKV, CPU)
    assert run.unit_rows == 2
    assert run.unit_adapters == [first, first, second, first, first]
    assert run.adapters == [first, second]
    assert torch.equal(run.adapter_of_unit, torch.tensor([0, 0, 1, 0, 0]))
    (equal,) = Pack(rows((first, 3), (second, 3))).runs(QKV, CPU)
    assert (equal.unit_rows, equal.adapter_of_unit) == (3, None)


def test_a_gap_or_dropout_parts_neighbours_and_dropout_parts_layers() -> None:
    plain, thinned = adapter(), adapter(lora_dropout=0.5)
    members = rows((plain, 1), (plain, 1))
    apart = [members[0], PackedRows(plain, slice(2, 3))]
    assert len(Pack(members).runs(QKV, CPU)) == 1
    assert len(Pack(apart).runs(QKV, CPU)) == 2
    runs = Pack(rows((plain, 1), (thinned, 2), key=7)).runs(QKV, CPU)
    assert [run.places for run in runs] == [(0, 1, 2), (0,), (1,), (2,)]
    assert not any(run.dropout for run in Pack(rows((plain, 1), (thinned, 2))).runs(QKV, CPU))  # no key: evaluation


def test_in_a_padded_pack_all_that_update_a_layer_share_its_run() -> None:
    small, large = adapter(rank=2, target_modules="q_v"), adapter(rank=8, target_modules="q_v", lora_dropout=0.5)
    all_linear = adapter(rank=4)
    members = rows((all_linear, 2), (small, 2), (large, 2), key=3)
    q, k, v = Pack(members, padded=True).runs(QKV, CPU)
    assert [run.places for run in (q, k, v)] == [(0,), (1,), (2,)]
    assert [(run.rows.start, run.rows.stop) for run in (q, k, v)] == [(0, 6), (0, 2), (0, 6)]
    assert q.adapters == [all_linear, small, large]
    assert [run.first for run in (q, k, v)] == [True, False, False]
    assert (q.rank, q.padded, q.dropout) == (8, True, True)
    assert (k.rank, k.padded, k.dropout) == (4, False, False)
    assert q.zeros(3, 5) is q.zeros(3, 5)
    assert torch.equal(q.zeros(3, 5), torch.zeros(3, 5))


def test_of_runs_that_share_rows_one_is_the_first() -> None:
    """Whoever is first overwrites the rows of a sum, the others add."""
    k_only, q_only, both = (adapter(target_modules=names) for names in ("k_proj", "q_proj", "k_proj+q_proj"))
    members = rows((both, 2), (k_only, 2), (q_only, 2))
    found = [(run.places, run.rows, run.first) for run in Pack(members, padded=True).runs(QKV, CPU)]
    q, q_alone, k = slice(0, 2), slice(4, 6), slice(0, 4)
    assert found == [((0,), q, True), ((0,), q_alone, True), ((1,), k, False)]  # k's rows 2 and 3 start from zeros


def test_unequal_row_counts_and_gaps_part_a_padded_run() -> None:
    """Units of a smaller size would each need a copy of their adapter's weights."""
    one, other = adapter(rank=2), adapter(rank=4)
    assert len(Pack(rows((one, 4), (other, 4)), padded=True).runs(DOWN, CPU)) == 1
    assert len(Pack(rows((one, 4), (other, 2)), padded=True).runs(DOWN, CPU)) == 2
    apart = [PackedRows(one, slice(0, 4)), PackedRows(other, slice(5, 9))]
    assert len(Pack(apart, padded=True).runs(DOWN, CPU)) == 2


def test_padding_pays_where_runs_cost_more_than_columns_of_zeros() -> None:
    """At a layer of as many outputs as inputs a column costs 2 / in_features of the frozen product."""
    low, high = adapter(rank=2, target_modules="q_v"), adapter(rank=8, target_modules="q_v")
    width = next(iter(low.weights.values())).a.shape[1]
    members = [PackedRows(low, slice(0, 4), 30), PackedRows(high, slice(4, 8), 50)]
    filled = 4 * 50 * (8 - 2) * 2 / width  # over the pass' width
    assert padding_pays(members, int(filled) + 1, math.inf, 4)
    assert not padding_pays(members, int(filled) - 1, math.inf, 4)
    assert not padding_pays([PackedRows(low, slice(0, 4), 30), PackedRows(low, slice(4, 8), 30)], 2**20, math.inf, 4)
    assert not padding_pays(members, 0, math.inf, 4)
    assert not padding_pays([], 2**20, math.inf, 4)


def test_packs_of_unequal_row_counts_are_not_padded() -> None:
    low, high = adapter(rank=2), adapter(rank=8)
    assert padding_pays([PackedRows(low, slice(0, 4)), PackedRows(high, slice(4, 8))], 2**20, math.inf, 4)
    assert not padding_pays([PackedRows(low, slice(0, 4)), PackedRows(high, slice(4, 7))], 2**20, math.inf, 4)


def test_zeros_that_take_too_much_room_are_not_made() -> None:
    low, high = adapter(rank=2), adapter(rank=8)
    members = [PackedRows(low, slice(0, 4)), PackedRows(high, slice(4, 8))]
    zeros = high.trainable_parameters - low.trainable_parameters
    assert padding_pays(members, 2**20, 2 * zeros, 2)
    assert not padding_pays(members, 2**20, 2 * zeros - 1, 2)


def test_rows_sorted_by_footprint_have_wide_targets_first() -> None:
    """So that the rows which update `k_proj` are neighbours, and those that update `q_proj` too."""
    made = [adapter(rank=rank, target_modules=targets) for targets in ("q_v", "all_linear") for rank in (8, 2)]
    assert sorted(made, key=lambda one: Footprint.of(one.config)) == [made[3], made[2], made[1], made[0]]


def test_layers_of_like_targets_share_their_runs() -> None:
    pack = Pack(rows((adapter(), 1)))
    assert pack.runs(QKV, CPU) is pack.runs(QKV, CPU)
    assert pack.runs(("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"), CPU) is not pack.runs(QKV, CPU)
    assert pack.runs(("no such layer",), CPU) == []


def test_each_card_has_runs_of_its_own_over_the_same_rows() -> None:
    other = tuple(name.replace(".0.", ".1.") for name in QKV)
    one = adapter()
    pack = Pack(rows((one, 1), (adapter(seed=1), 2)))
    (here,), (there,) = pack.runs(QKV, CPU), pack.runs(other, torch.device("meta"))
    assert (here.scales.device.type, there.scales.device.type) == ("cpu", "meta")
    assert (here.rows, here.adapters) == (there.rows, there.adapters)


def test_a_pack_updates_the_layers_that_one_of_its_adapters_has_weights_for() -> None:
    pack = Pack(rows((adapter(target_modules="q_v"), 1)))
    assert pack.updates(QKV)
    assert not pack.updates(DOWN)
    assert not Pack().updates(QKV)

"""Perplexity and accuracy against plain transformers and PEFT, row by row, with full logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.support.lora_cases import ANSWERS, lora_config, new_member, peft_model, random_rows, trained_adapter
from tests.support.small_models import shared, tiny_llama
from trainables.base_model.load import load_base_model
from trainables.dataset.rows import Answers, Row
from trainables.measure.evaluation import Evaluation, batches_by_length, evaluate, evaluate_together
from trainables.measure.generation import generate
from trainables.packed.adapter import LoraAdapter
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients
from trainables.settings import BaseModelSettings

Tokens = tuple[tuple[int, ...], ...]

ONE_TOKEN: Tokens = ((11,), (12,), (13,))
SEVERAL_TOKENS: Tokens = ((11, 12), (11, 13), (14, 12))
UNEQUAL_TOKENS: Tokens = ((11, 12), (11, 13, 14), (15,))


class ManyTokens(Answers):
    """Answers of one token each that are asked for as if they had several."""

    single = False


def asked(rows: Sequence[Row], tokens: Tokens, back: int = 0, kind: type[Answers] = Answers) -> list[Row]:
    """The rows with these answers, `back` tokens before their first target where they have so many."""
    return [replace(row, answers=kind(max(1, row.target_start - back), tokens)) for row in rows]


ROWS = asked(random_rows(17), ONE_TOKEN)
SEVERAL = asked(ROWS, SEVERAL_TOKENS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return PackedModel(tiny_llama().train())


@pytest.fixture(scope="module")
def adapter(model: PackedModel) -> LoraAdapter:
    return trained_adapter(model, lora_config(), ROWS)


def plain_nats(plain: torch.nn.Module, tokens: Sequence[int], first_target: int) -> float:
    """Minus log-likelihood of `tokens[first_target:]`, from one row's full logits."""
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([tokens])).logits[0, first_target - 1 : -1].double()
    targets = torch.tensor(tokens[first_target:])
    return float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))


def plain_perplexity(plain: torch.nn.Module, rows: Sequence[Row]) -> float:
    total = sum(plain_nats(plain, row.tokens, row.target_start) for row in rows)
    return math.exp(total / sum(len(row.tokens) - row.target_start for row in rows))


def brute_force_answers(plain: torch.nn.Module, rows: Sequence[Row]) -> list[str]:
    answers = []
    for row in rows:
        assert row.answers is not None
        prompt = row.tokens[: row.answers.prompt_tokens]
        nats = [plain_nats(plain, (*prompt, *tokens), len(prompt)) for tokens in row.answers.tokens]
        answers.append(ANSWERS[nats.index(min(nats))])
    return answers


def test_the_base_models_nats_are_plain_transformers(model: PackedModel) -> None:
    """fp32: relative 1e-5 of every row."""
    ours, plain = evaluate(model, None, ROWS, (), 100), tiny_llama()
    assert ours.nats == pytest.approx([plain_nats(plain, row.tokens, row.target_start) for row in ROWS], rel=1e-5)
    assert ours.tokens == tuple(len(row.tokens) - row.target_start for row in ROWS)
    assert ours.perplexity == pytest.approx(plain_perplexity(plain, ROWS), rel=1e-6)
    assert ours.correct is None
    assert ours.accuracy is None


@pytest.mark.parametrize("target_modules", ["q_v", "all_linear", "o_proj+down_proj"])
def test_a_trained_adapters_nats_are_those_of_its_exported_files(
    target_modules: str, model: PackedModel, tmp_path: Path
) -> None:
    """fp32: relative 1e-5 of every row; and training has changed them by far more."""
    trained = trained_adapter(model, lora_config(target_modules=target_modules, lora_alpha=5.5), ROWS)
    ours, theirs = evaluate(model, trained, ROWS, (), 100), peft_model(tiny_llama(), trained, tmp_path)
    assert ours.nats == pytest.approx([plain_nats(theirs, row.tokens, row.target_start) for row in ROWS], rel=1e-5)
    assert ours.perplexity == pytest.approx(plain_perplexity(theirs, ROWS), rel=1e-6)
    assert ours.perplexity < 0.98 * evaluate(model, None, ROWS, (), 100).perplexity


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-3), ("nf4", 1e-3)])
def test_a_learned_models_perplexity_is_plain_transformers_and_pefts(
    precision: str, tolerance: float, sampled_rows: list[Row], tmp_path: Path
) -> None:
    """On a CPU that multiplies bf16, bf16 and NF4 compute in its 8 bits, and both sides round: to 1 %."""
    settings = BaseModelSettings(str(shared("models/stories260K")))
    loaded, other = (load_base_model(settings, precision, "cpu", use_cache=False) for _ in range(2))
    tolerance = tolerance if loaded.compute_dtype == torch.float32 else 1e-2
    ours, plain, tokenizer = PackedModel(loaded.model.train()), other.model, other.tokenizer
    rows = [*_story_rows(tokenizer), *sampled_rows]
    base = evaluate(ours, None, rows, (), 256)
    assert base.perplexity < 20  # of 512 tokens: it has learned something
    assert base.perplexity == pytest.approx(plain_perplexity(plain, rows), rel=tolerance)
    trained = trained_adapter(ours, lora_config(precision=precision), rows[:4], steps=2)
    tuned = evaluate(ours, trained, rows, (), 256)
    assert tuned.perplexity != pytest.approx(base.perplexity, rel=0.02)
    assert tuned.perplexity == pytest.approx(
        plain_perplexity(peft_model(plain, trained, tmp_path), rows), rel=tolerance
    )


def _story_rows(tokenizer) -> list[Row]:
    texts = (
        ("Once upon a time, there was a little", " girl named Lily. She loved to play outside in the park."),
        ("Tom had a big red", " ball. He liked to play with it every day."),
        ("The dog saw a cat and", " ran after it. The cat was scared and ran up a tree."),
        ("One day, Mom said,", ' "Let us go to the beach!" They were very happy.'),
    )
    rows = []
    for prompt, completion in texts:
        start = [tokenizer.bos_token_id, *tokenizer.encode([prompt])[0].ids]
        target = [*tokenizer.encode([completion])[0].ids, tokenizer.eos_token_id]
        rows.append(Row((*start, *target), len(start), None, prompt))
    return rows


@pytest.fixture(scope="module")
def sampled_rows() -> list[Row]:
    """Stories of the model's own: enough targets that 16-bit rounding averages out."""
    plain = AutoModelForCausalLM.from_pretrained(shared("models/stories260K"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = torch.full((12, 1), 1)
        stories = plain.generate(start, do_sample=True, max_new_tokens=60, min_new_tokens=60, pad_token_id=0)
    return [Row(tuple(story), 4, None, "") for story in stories.tolist()]


@pytest.mark.parametrize("batch_tokens", [1, 30, 64, 10_000])
def test_batches_and_their_order_change_nothing_but_rounding(
    batch_tokens: int, model: PackedModel, adapter: LoraAdapter
) -> None:
    """Relative 1e-5 of every row."""
    alone = [evaluate(model, adapter, [row], ANSWERS, 1) for row in ROWS]
    ours = evaluate(model, adapter, ROWS, ANSWERS, batch_tokens)
    assert ours.nats == pytest.approx([one.nats[0] for one in alone], rel=1e-5)
    assert ours.correct == tuple(one.accuracy == 1 for one in alone)
    backward = evaluate(model, adapter, ROWS[::-1], ANSWERS, batch_tokens)
    assert backward.nats[::-1] == pytest.approx(ours.nats, rel=1e-5)
    assert backward.correct is not None
    assert backward.correct[::-1] == ours.correct


@pytest.mark.parametrize("run_tokens", [0, 2**30])  # with dear runs all ranks share products
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_together_is_as_alone(
    batch_tokens: int, run_tokens: int, model: PackedModel, adapter: LoraAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative 1e-5 of every row; dropout is off, the base model may be among them."""
    monkeypatch.setattr(model, "run_tokens", run_tokens)
    other = trained_adapter(model, lora_config(rank=2, target_modules="q_v", lora_dropout=0.5, seed=8), ROWS)
    several = [adapter, None, other]
    together = evaluate_together(model, several, SEVERAL, ANSWERS, batch_tokens)
    for one, evaluation in zip(several, together, strict=True):
        alone = evaluate(model, one, SEVERAL, ANSWERS, 100)
        assert evaluation.nats == pytest.approx(alone.nats, rel=1e-5)
        assert evaluation.correct == alone.correct


@given(st.lists(st.integers(2, 40), max_size=30), st.integers(1, 200))
def test_every_row_is_in_one_batch_of_bounded_size(lengths: list[int], batch_tokens: int) -> None:
    rows = [Row(tuple(range(length)), 1, None, "") for length in lengths]
    batches = list(batches_by_length(rows, batch_tokens))
    assert sorted(number for batch in batches for number in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[number] for number in batch) <= batch_tokens


@pytest.mark.parametrize("with_adapter", [False, True])
def test_accuracy_is_brute_force(with_adapter: bool, model: PackedModel, adapter: LoraAdapter, tmp_path: Path) -> None:
    """One token an answer, by either path, several tokens an answer, and answers from a token of the prompt on."""
    ours = adapter if with_adapter else None
    plain = peft_model(tiny_llama(), adapter, tmp_path) if with_adapter else tiny_llama()
    many, unequal = asked(ROWS, ONE_TOKEN, kind=ManyTokens), asked(ROWS, UNEQUAL_TOKENS)
    early = asked(ROWS, ONE_TOKEN, back=1)
    mixed = [pair[number % 3] for number, pair in enumerate(zip(ROWS, SEVERAL, early, strict=True))]
    for rows in (ROWS, many, SEVERAL, unequal, early, mixed):
        expected = brute_force_answers(plain, rows)
        assert len(set(expected)) > 1 or rows is unequal  # the shortest is the likeliest by far
        evaluation = evaluate(model, ours, rows, ANSWERS, 60)
        right = tuple(answer == row.label for answer, row in zip(expected, rows, strict=True))
        assert evaluation.correct == right
        assert evaluation.accuracy == sum(right) / len(rows)


def test_answers_are_told_apart_where_sixteen_bits_cannot(model: PackedModel) -> None:
    """Two answers whose bf16 logits are equal, 2.5e-4 apart: the likelier one wins, also where it comes second."""
    half = PackedModel(tiny_llama(torch.bfloat16))
    prompt = Row((5, 6, 7), 2, "no", "")
    with half.rows_of([]) as causal, torch.no_grad():
        hidden = causal.get_decoder()(input_ids=torch.tensor([[5, 6]])).last_hidden_state[0, -1]
        half.head[11] = 100 / hidden.float().square().sum() * hidden.float()
        half.head[12] = half.head[11]
        largest = int(hidden.abs().argmax())
        half.head[12, largest] += half.head[12, largest].abs() * 2**-7 * hidden[largest].sign()
        close = (hidden.float() @ half.head[11].float(), hidden.float() @ half.head[12].float())
        assert (hidden @ half.head[11]) == (hidden @ half.head[12])
    assert close[1] > close[0]
    for tokens, expected in ((((11,), (12,)), "no"), (((12,), (11,)), "yes")):
        rows = asked([replace(prompt, label=expected)], tokens)
        found = evaluate(half, None, rows, ("yes", "no"), 64)
        assert found.accuracy == 1


def test_rows_without_a_label_are_not_asked(model: PackedModel) -> None:
    unlabelled = [replace(row, label=None) for row in ROWS]
    unasked = [replace(row, answers=None) for row in ROWS]
    assert evaluate(model, None, unlabelled, ANSWERS, 64).accuracy is None
    assert evaluate(model, None, unasked, ANSWERS, 64).accuracy is None
    assert evaluate(model, None, ROWS, (), 64).accuracy is None
    mixed = evaluate(model, None, [*ROWS, *unlabelled], ANSWERS, 64)
    assert mixed.accuracy == evaluate(model, None, ROWS, ANSWERS, 64).accuracy
    assert len(mixed.nats) == 2 * len(ROWS)


def test_answers_are_single_only_where_one_pass_tells_them_apart() -> None:
    assert Answers(1, ONE_TOKEN).single
    assert not Answers(1, SEVERAL_TOKENS).single
    assert not Answers(1, ((3,), (3,))).single


@pytest.mark.parametrize("rank", [4, 2, 6])  # as the other's, and such that one of them is filled up with zeros
@pytest.mark.parametrize(("value", "shown"), [(math.nan, math.isnan), (1e30, lambda p: not math.isfinite(p))])
def test_what_is_not_finite_shows_and_stays_with_its_adapter(
    value: float, shown, rank: int, model: PackedModel, adapter: LoraAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "run_tokens", 2**30)
    broken = trained_adapter(model, lora_config(seed=5, rank=rank), ROWS, steps=1)
    for pair in broken.weights.values():
        pair.b.data.fill_(value)
    bad, good, base = evaluate_together(model, [broken, adapter, None], ROWS, ONE_TOKEN, 10_000)
    assert shown(bad.perplexity)
    assert not bad.finite
    for evaluation, alone in ((good, adapter), (base, None)):
        assert evaluation.finite
        assert evaluation.nats == pytest.approx(evaluate(model, alone, ROWS, (), 100).nats, rel=1e-5)


def test_perplexity_in_closed_form() -> None:
    assert Evaluation((2.0, 4.0), (1, 5), None).perplexity == pytest.approx(math.e)  # not the mean of the rows'
    assert Evaluation((705.0,), (1,), None).perplexity == pytest.approx(math.exp(705))
    for nats, finite in ((710.0, False), (math.inf, False), (math.nan, False), (0.0, True)):
        assert Evaluation((nats,), (1,), None).finite is finite
    assert Evaluation((710.0,), (1,), None).perplexity == math.inf
    assert math.isnan(Evaluation((math.nan, 1.0), (1, 1), None).perplexity)
    assert Evaluation((1.0, 1.0, 1.0, 1.0), (1, 1, 1, 1), (True, False, False, True)).accuracy == 0.5


def test_between_is_called_after_every_batch(model: PackedModel) -> None:
    calls: list[int] = []
    evaluate(model, None, ROWS, None, 1, between=lambda: calls.append(1))
    assert len(calls) == len(ROWS)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_evaluating_and_generating_before_training_change_no_gradient(precision: str) -> None:
    """Bit-equal gradients: with NF4 this is the trap of weights that are repacked in eval mode."""
    settings = BaseModelSettings(str(shared("models/stories260K")))
    rows = random_rows(4, vocabulary=512)
    gradients = []
    for evaluated in (False, True):
        model = PackedModel(load_base_model(settings, precision, "cpu", use_cache=False).model)
        if evaluated:
            evaluate(model, None, rows, ONE_TOKEN, 64)
            generate(model, None, [1, 2, 3], 3)
        model.model.train()
        member = new_member(model, lora_config(precision=precision), rows)
        accumulate_gradients(model, [member], rows)
        gradients.append([parameter.grad for parameter in member.adapter.parameters()])
    for never, after in zip(*gradients, strict=True):
        assert torch.equal(never, after)
    assert any(gradient.any() for gradient in gradients[0])

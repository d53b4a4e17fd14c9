"""Makes rows of examples: one text each, split where the completion begins, cut at `max_tokens`.

The first target is the first token that reaches into the completion: one that stands for the prompt's last characters
too is a target, so that nothing of the answer is left out of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from trainables.dataset.rows import Answers, Row
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoded, Encoding


def tokenize(
    examples: Sequence[Example],
    encoding: Encoding,
    max_tokens: int,
    labels: Sequence[str] = (),
    look: Callable[[Example, Encoded], None] = lambda example, encoded: None,
) -> Iterator[tuple[Row | None, bool]]:
    """Yields of each example its row of at most `max_tokens` tokens (None: no target is left), and whether it lost any.

    A row of an example with a label gets `labels` as answers, each tokenized as the completion after this prompt.
    `look` is shown each example with its whole text's tokens.
    """
    # In one go, so that texts are tokenized many at a time: an example's own, then those of its answers.
    texts = (text for example in examples for text in _texts(example, labels))
    encoded = encoding.encode(texts)
    for example in examples:
        whole = next(encoded)
        look(example, whole)
        others = [next(encoded) for _ in _texts(example, labels)[1:]]
        yield _cut(example, whole, others, encoding, max_tokens)


def _texts(example: Example, labels: Sequence[str]) -> list[str]:
    answers = labels if example.label is not None else ()
    return [example.prompt + example.completion, *(f"{example.prompt} {answer}" for answer in answers)]


def _cut(
    example: Example, whole: Encoded, answers: Sequence[Encoded], encoding: Encoding, max_tokens: int
) -> tuple[Row | None, bool]:
    """Cuts surplus tokens from the start of the context, and where it is too short from the end of the target.

    So what stands nearest to question and completion stays.
    """
    ids, bos, eos = list(whole.ids), encoding.bos(whole), encoding.eos(whole)
    split = whole.tokens_within(len(example.prompt))
    begin, end = _context(example, whole, split)
    excess = len(bos) + len(ids) + len(eos) - max_tokens
    # Without BOS, head and tail the context's last token stays: a target needs a token before it.
    spare = end - begin - (not bos and begin == 0 and end == split)
    lost = max(0, min(excess, spare))
    tokens = (bos + ids[:begin] + ids[begin + lost :] + eos)[:max_tokens]
    start = max(1, len(bos) + split - lost)
    if start >= len(tokens):
        return None, excess > 0
    found = _answers(whole, answers, split)
    if found:
        common, told = found
        prompt_tokens = len(bos) + common - min(lost, max(0, common - begin))
        row_answers = Answers(prompt_tokens, told) if prompt_tokens else None
    else:
        row_answers = None
    return Row(tuple(tokens), start, example.label, example.row_id, row_answers), excess > 0


def _context(example: Example, whole: Encoded, split: int) -> tuple[int, int]:
    """Returns the range of tokens that stand for the context alone; it ends before the first target."""
    first, last = len(example.prompt_head), len(example.prompt_head) + len(example.context)
    begin = next((i for i in range(split) if whole.offsets[i][0] >= first), split)
    end = next((i for i in range(begin, split) if whole.offsets[i][1] > last), split)
    return begin, end


def _answers(whole: Encoded, answers: Sequence[Encoded], split: int) -> tuple[int, tuple[tuple[int, ...], ...]] | None:
    """Returns the count of tokens that the row and all answers begin with alike, and the answers' tokens after them.

    At most the prompt's own `split` tokens: a token that an answer shares with the prompt is the answer's. Fewer where
    one answer joins with the prompt's end and another does not: then the tokens of all begin before it, stand for the
    same text, and their likelihoods compare.
    """
    if not answers:
        return None
    common = split
    for answer in answers:
        pairs = zip(whole.ids[:common], answer.ids, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common, tuple(tuple(answer.ids[common:]) for answer in answers)

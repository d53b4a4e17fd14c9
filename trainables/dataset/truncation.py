"""Tokenizes an example, and cuts it at `max_tokens`: the truncation rule."""

from __future__ import annotations

from trainables.dataset.rows import Row, Tokenizer, token_ids
from trainables.dataset.splits import Example


def tokenize(example: Example, tokenizer: Tokenizer, max_tokens: int) -> tuple[Row | None, bool]:
    """Returns the example as at most `max_tokens` tokens (None: no target is left), and whether it lost any.

    Prompt and completion are tokenized each on its own. Surplus tokens are cut from the start of the context, so that
    what stands nearest to question and completion stays; where the context is too short, from the end of the target.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    head, context, tail = _prompt_parts(example, tokenizer)
    target = token_ids(tokenizer, example.completion) + eos
    excess = len(bos) + len(head) + len(context) + len(tail) + len(target) - max_tokens
    # Without BOS, head and tail the context's last token stays: a target needs a token before it.
    spare = len(context) if bos or head or tail else len(context) - 1
    prompt = bos + head + context[max(0, min(excess, spare)) :] + tail
    tokens = (prompt + target)[:max_tokens]
    start = max(1, len(prompt))
    if start >= len(tokens):
        return None, excess > 0
    return Row(tuple(tokens), start, example.label, example.row_id), excess > 0


def _prompt_parts(example: Example, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    """Returns the prompt's tokens before, wholly inside, and after the context.

    The prompt is tokenized in one piece; a tokenizer that cannot tell where its tokens lie gets three pieces.
    """
    if not example.context:
        return token_ids(tokenizer, example.prompt), [], []
    if not tokenizer.is_fast:
        return (
            token_ids(tokenizer, example.prompt_head),
            token_ids(tokenizer, example.context),
            token_ids(tokenizer, example.prompt_tail),
        )
    encoded = tokenizer(example.prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    first, last = len(example.prompt_head), len(example.prompt_head) + len(example.context)
    begin = next((i for i, (start, _) in enumerate(offsets) if start >= first), len(ids))
    end = next((i for i in range(begin, len(ids)) if offsets[i][1] > last), len(ids))
    return ids[:begin], ids[begin:end], ids[end:]

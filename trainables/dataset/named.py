"""Lists the named datasets: what `dataset.name` may be without files of one's own.

A new one is a module like `pubmedqa` or `stackoverflow`, with a function that reads all its examples, and a line here.
Answers with labels, and so accuracy, are PubMedQA's alone so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainables.dataset.pubmedqa import pubmedqa_pool
from trainables.dataset.splits import Pool
from trainables.dataset.stackoverflow import stackoverflow_pool

NAMED: Mapping[str, Callable[[str | None], Pool]] = {"pubmedqa": pubmedqa_pool, "stackoverflow": stackoverflow_pool}

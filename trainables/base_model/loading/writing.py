"""Writes a quantized model into a folder, by several threads that copy from the card and write pieces."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from trainables.base_model.checks.weight_files import SINGLE_FILE
from trainables.base_model.loading.tensors import DTYPES, MOST_THREADS, PIECE_BYTES

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Piece:
    """Bytes of a tensor, as a flat tensor where it lies, that go to `offset` of the file."""

    content: torch.Tensor
    offset: int


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Writes what `save_pretrained` writes, in one file of weights. Raises OSError where it cannot be written."""
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(str(folder))
    model.generation_config.save_pretrained(str(folder))
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    write_tensors(tensors, folder / SINGLE_FILE)


def write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Writes a safetensors file of the tensors, those of the widest types first, so that each lies aligned."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    pieces: list[_Piece] = []
    end = 0
    for name in names:
        flat = tensors[name].detach().contiguous().view(-1).view(torch.uint8)
        place = [end, end + len(flat)]
        header[name] = {"dtype": NAMES[tensors[name].dtype], "shape": [*tensors[name].shape], "data_offsets": place}
        pieces += [_Piece(part, end + PIECE_BYTES * number) for number, part in enumerate(flat.split(PIECE_BYTES))]
        end += len(flat)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(begin + end)
        opened.flush()
        threads = max(1, min(MOST_THREADS, os.cpu_count() or 1))
        with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
            shares = [pieces[number::threads] for number in range(threads)]
            for done in [pool.submit(_write, share, opened.fileno(), begin) for share in shares]:
                done.result()


def _write(pieces: list[_Piece], file: int, begin: int) -> None:
    """Writes the pieces one after another, through memory that a card writes to by itself."""
    staging: torch.Tensor | None = None
    for piece in pieces:
        content = piece.content
        if content.is_cuda:
            if staging is None:
                staging = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
            content = staging[: len(content)].copy_(content)
        array: Any = content.numpy()
        view, done = memoryview(array), 0
        while done < len(view):
            done += os.pwrite(file, view[done:], begin + piece.offset + done)

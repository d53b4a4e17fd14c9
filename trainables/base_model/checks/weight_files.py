"""Finds a folder's weight files, and checks from their headers that they hold what the configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.base_model.checks.contents import CONVERT, PICKLED_ENDINGS, file_fault, is_there, pointers, refused
from trainables.base_model.checks.faults import BaseModelError, ModelFault, raise_any, whole_file
from trainables.base_model.checks.four_bit_tensors import four_bit_faults, whole_weights
from trainables.base_model.checks.quantization import four_bit_of
from trainables.base_model.checks.safetensors_header import WEIGHT_DTYPES, WHOLE, Tensor, read_header
from trainables.base_model.checks.tensors import needed_tensors, tensor_faults
from trainables.guarded_files import FileRefusedError, read_json
from trainables.shown_values import shortened

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MOST_INDEX_BYTES = 16 * 2**20
MOST_SHARDS = 1000
MOST_FAULTS = 5  # of one folder's weights, each told by itself
LONGEST_NAME = 255  # bytes, of a file in a folder
ENDING = ".safetensors"


def weight_files(folder: Path) -> list[Path]:
    """Lists the folder's safetensors, every shard of them, whole or not; as transformers, one file before an index.

    Raises BaseModelError for an index that is none, for weights that are missing, and for pickled ones.
    """
    names = listed_weights(folder)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BaseModelError.of([_missing(folder, names, missing)])
    return [folder / name for name in names]


def listed_weights(folder: Path) -> list[str]:
    """Returns the names of the files that the folder's weights must be in, whether they are there or not.

    Raises BaseModelError for an index that is none.
    """
    index = folder / INDEX_FILE
    if not index.is_symlink() and not index.exists():
        return [SINGLE_FILE]
    if (folder / SINGLE_FILE).exists():
        return [SINGLE_FILE]
    fault = file_fault(index, "must be the index of the weights' files")
    raise_any([fault] if fault else [])
    try:
        values = read_json(index, MOST_INDEX_BYTES)
    except FileRefusedError as error:
        raise BaseModelError.of([refused(index, error, "Download the index again.")]) from None
    raise_any(_index_faults(str(index), values))
    return sorted(set(values["weight_map"].values()))


def has_weights(folder: Path) -> bool:
    """Whether any of the folder's weights are there; False for a folder of configurations, or of links to nothing."""
    return any(is_there(folder / name) for name in listed_weights(folder)) or bool(pickled_files(folder))


def pickled_files(folder: Path) -> list[str]:
    """Returns the names of the folder's pickled weights."""
    names = (path.name for path in folder.iterdir() if path.suffix.lower() in PICKLED_ENDINGS)
    return sorted(
        name for name in names if name not in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    )


def weights_faults(folder: Path, values: Mapping[str, Any] | None) -> list[ModelFault]:
    """Returns what is wrong with the folder's weights, from their headers.

    `values` is its configuration; without one, the files are checked by themselves.
    """
    try:
        names = listed_weights(folder)
    except BaseModelError as error:
        return list(error.faults)
    missing = [name for name in names if not (folder / name).exists()]
    faults = [_missing(folder, names, missing)] if missing else []
    there = [folder / name for name in names if name not in missing]
    found_pointers = pointers(there)
    headers: dict[Path, Mapping[str, Tensor]] = {}
    for path in there if not found_pointers else ():
        try:
            headers[path] = read_header(path)
        except BaseModelError as error:
            faults += error.faults
    faults += found_pointers
    if len(faults) > MOST_FAULTS:
        more = f"{len(faults) - MOST_FAULTS} more faults"
        return [*faults[:MOST_FAULTS], whole_file(folder, more, WHOLE, "Download the model again.")]
    return faults or list(_content_faults(folder, headers, values))


def _content_faults(
    folder: Path, headers: Mapping[Path, Mapping[str, Tensor]], values: Mapping[str, Any] | None
) -> Iterator[ModelFault]:
    homes: dict[str, Path] = {}
    twice: list[tuple[str, Path]] = []
    for path, found in headers.items():
        twice += [(name, path) for name in found if name in homes]
        homes.update(dict.fromkeys(found, path))
    if twice:
        name, path = twice[0]
        rule = f"must be in one file; {len(twice)} tensors are in another too, as in {path.name}"
        yield ModelFault(str(path), "tensor", shortened(name), rule, "Download the model again.")
    place = str(folder / SINGLE_FILE) if len(headers) == 1 else str(folder / INDEX_FILE)
    tensors = {name: tensor for found in headers.values() for name, tensor in found.items()}
    four_bit = four_bit_of(values) if values else None
    if values and four_bit:
        quantized = four_bit_faults(headers, needed_tensors(values), four_bit)
        yield from quantized
        if quantized:
            return
        tensors = whole_weights(tensors, needed_tensors(values))
    other = [name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dtype not in WEIGHT_DTYPES]
    if other:
        rule = (
            f"must be one of {', '.join(WEIGHT_DTYPES)}; {len(other)} tensors are not, as where weights are quantized"
        )
        remedy = "Give the original weights: precision nf4 quantizes them."
        yield ModelFault(str(homes[other[0]]), f"{shortened(other[0])}.dtype", tensors[other[0]].dtype, rule, remedy)
    elif values is not None:
        yield from tensor_faults(
            {name: tensor.shape for name, tensor in tensors.items()}, needed_tensors(values), place
        )


def _missing(folder: Path, names: list[str], missing: list[str]) -> ModelFault:
    pickled = pickled_files(folder)
    if len(missing) == len(names) and pickled:
        rule = "must be safetensors; there are pickled weights only, which can run code and are never read"
        return ModelFault(str(folder), "weights", pickled[0], rule, CONVERT.partition(": ")[2].capitalize())
    is_link = (folder / missing[0]).is_symlink()
    found = "a link to nothing" if is_link else "missing"
    count = f"; of {len(names)} files {len(missing)} are missing" if len(names) > 1 else ""
    return whole_file(folder / missing[0], found, f"{WHOLE}{count}", "Download the model completely.")


def _index_faults(file: str, values: Any) -> Iterator[ModelFault]:
    remedy = "Download the index again."
    if not isinstance(values, dict):
        yield whole_file(file, type(values).__name__, "must be a mapping with weight_map", remedy)
        return
    given = values.get("weight_map")
    if not isinstance(given, dict) or not given:
        yield ModelFault(file, "weight_map", given, "must map the names of tensors to names of files", remedy)
        return
    for name, target in given.items():
        rule = _target_rule(target)
        if rule:
            yield ModelFault(file, f"weight_map.{shortened(name)}", target, rule, remedy)
            return
    count = len(set(given.values()))
    if count > MOST_SHARDS:
        yield ModelFault(file, "weight_map", f"{count} files", f"must name at most {MOST_SHARDS} files", remedy)


def _target_rule(target: Any) -> str | None:
    if not isinstance(target, str):
        return "must be the name of a file"
    if len(target.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        return f"must be a file's name of at most {LONGEST_NAME} bytes"
    if "/" in target or "\\" in target or "\0" in target or target in ("", ".", ".."):
        return "must be the name of a file beside the index, without folders"
    return None if target.endswith(ENDING) else f"must be the name of a file that ends in {ENDING}"

"""Measured footprints correct the memory model's constants, and are kept between studies."""

import json
import random
from dataclasses import replace

import pytest

from search_spaces.trial_config import TARGET_SETS
from study.hardware.calibration import (
    MOST_FOOTPRINTS,
    MOST_SLACK_FACTOR,
    MeasuredFootprint,
    add_footprints,
    calibration_for,
    calibration_path,
    fit,
    read_footprints,
)
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import Offload
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.memory.slack import slack_bytes
from trainables.memory.weights import ModelPart, base_components

MIB = 2**20
SHAPE = ModelShape(2048, 8192, 16, 32, 8, 64, 128256, True, 33 * 2048)
DEFAULT = DEFAULT_CONSTANTS["cuda"]
TRUTH = MemoryConstants(500 * MIB, 150 * MIB, 1.25, 1.3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    return tmp_path


def measured(rank: int, rows: int, tokens: int, noise: float = 0.0, precision: str = "nf4") -> MeasuredFootprint:
    """What a card of the constants TRUTH would show."""
    setting = MemorySetting(precision, "fp16")
    load = AdapterLoad(rank, TARGET_SETS["all_linear"], False, rows, tokens, rows * tokens // 2)
    peak = round(predict(SHAPE, setting, load, TRUTH).peak_memory_bytes + noise)
    reserved = peak + fragments(setting, peak, TRUTH)
    return MeasuredFootprint(SHAPE, setting, load, 1, peak, reserved, reserved + TRUTH.context_bytes, 1.5)


def fragments(setting: MemorySetting, peak: int, constants: MemoryConstants) -> int:
    """What a card of these constants holds beside a peak."""
    weights = sum(base_components(SHAPE, setting, ModelPart(SHAPE.layers)).values())
    return slack_bytes(setting, peak - weights, constants)


def many(noise: float = 0.0) -> list[MeasuredFootprint]:
    draw = random.Random(0)
    return [
        measured(rank, rows, tokens, draw.uniform(-noise, noise), precision)
        for rank in (4, 64)
        for rows in (1, 4)
        for tokens in (256, 1024, 2048)
        for precision in ("nf4", "fp16")
    ]


def test_exact_measurements_give_the_cards_constants_back():
    found = fit(many(), DEFAULT)
    assert found.constants.activation_factor == pytest.approx(TRUTH.activation_factor, rel=1e-3)
    assert found.constants.offset_bytes == pytest.approx(TRUTH.offset_bytes, abs=MIB)
    assert found.constants.context_bytes == pytest.approx(TRUTH.context_bytes, abs=8)
    assert found.constants.slack_factor == pytest.approx(TRUTH.slack_factor, rel=1e-6)
    assert found.constants.calibrated
    assert (found.footprints, found.time_factor) == (24, 1.5)


def test_the_fit_predicts_better_than_the_defaults_and_withstands_an_outlier():
    seen = many(noise=4 * MIB)
    seen[3] = replace(seen[3], peak_memory_bytes=2 * seen[3].peak_memory_bytes)  # another process was on the card
    found = fit(seen, DEFAULT).constants

    def worst(constants):
        return max(
            abs(predict(one.shape, one.setting, one.load, constants).peak_memory_bytes / one.peak_memory_bytes - 1)
            for place, one in enumerate(seen)
            if place != 3
        )

    assert worst(found) < 0.02 < worst(DEFAULT)


def test_one_footprint_corrects_the_offset_alone():
    found = fit([measured(16, 1, 512)], DEFAULT).constants
    assert found.activation_factor == 1.0
    one = measured(16, 1, 512)
    assert predict(SHAPE, one.setting, one.load, found).peak_memory_bytes == pytest.approx(one.peak_memory_bytes, abs=2)


@pytest.mark.parametrize(
    ("factors", "found"),
    [
        ([0.2] * 24, 1.0),  # a card with room shows fragments only by chance
        ([0.2] * 22 + [1.2, 1.2], 1.2),  # a high quantile, not the median
        ([0.2] * 23 + [1.4], 1.0),  # one of 24 is beyond it
        ([1.1] * 12 + [3.0] * 12, MOST_SLACK_FACTOR),  # free blocks that an allocator with room keeps
    ],
)
def test_the_reserve_for_fragments_follows_a_high_quantile(factors, found):
    seen = [
        replace(one, peak_reserved_bytes=one.peak_memory_bytes + fragments(one.setting, one.peak_memory_bytes, own))
        for one, own in zip(many(), (replace(TRUTH, slack_factor=factor) for factor in factors), strict=True)
    ]
    assert fit(seen, DEFAULT).constants.slack_factor == pytest.approx(found, rel=1e-6)


def test_without_measurements_the_defaults_stand():
    assert fit([], DEFAULT).constants == DEFAULT
    assert not calibration_for("t4", "cuda", 1).constants.calibrated


def test_missing_figures_leave_their_constants_alone():
    bare = replace(measured(16, 1, 512), peak_reserved_bytes=None, peak_device_bytes=None, time_ratio=None)
    found = fit([bare], DEFAULT)
    assert found.constants.context_bytes == DEFAULT.context_bytes
    assert found.constants.slack_factor == DEFAULT.slack_factor == 1.0
    assert found.time_factor == 1.0


def test_footprints_are_kept_and_the_newest_of_each_counts():
    first, again = measured(16, 1, 512), replace(measured(16, 1, 512), peak_memory_bytes=7 * 2**30)
    add_footprints("Tesla T4", [first, measured(8, 1, 512)])
    add_footprints("Tesla T4", [again])
    assert set(read_footprints("Tesla T4")) == {measured(8, 1, 512), again}
    assert calibration_path("Tesla T4").name == "tesla-t4.json"
    assert read_footprints("another card") == ()
    assert not list(calibration_path("Tesla T4").parent.glob("*.partial"))


def test_what_waited_in_host_memory_is_kept_with_a_footprint():
    offload, resident = Offload(3, True, False, True), measured(8, 1, 512)
    streamed = replace(resident, setting=replace(resident.setting, offload=offload, optimizer="adamw_8bit"))
    add_footprints("t4", [streamed, resident])
    assert set(read_footprints("t4")) == {streamed, resident}


def test_another_engines_or_devices_footprints_do_not_count():
    add_footprints("t4", many())
    assert calibration_for("t4", "cuda", engine=1).footprints == 24
    assert calibration_for("t4", "cuda", engine=2).footprints == 0
    assert calibration_for("t4", "cpu", engine=1).footprints == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99, "footprints": []}',
                                  '{"schema_version": 1, "footprints": [{"peak_memory_bytes": 1}]}'])  # fmt: skip
def test_a_broken_or_foreign_file_is_made_anew(text):
    path = calibration_path("t4")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_footprints("t4") == ()
    add_footprints("t4", [measured(16, 1, 512)])
    assert len(read_footprints("t4")) == 1
    assert json.loads(path.read_text())["card"] == "t4"


def test_a_cache_that_cannot_be_written_is_no_fault(cache, caplog):
    (cache / "calibration").write_text("a file in the folder's place")
    add_footprints("t4", [measured(16, 1, 512)])
    assert "could not be kept" in caplog.text


def test_the_file_does_not_grow_without_bound():
    add_footprints("t4", [measured(rank, 1, 256) for rank in range(1, MOST_FOOTPRINTS + 21)])
    kept = read_footprints("t4")
    assert len(kept) == MOST_FOOTPRINTS
    assert kept[-1].load.rank == MOST_FOOTPRINTS + 20

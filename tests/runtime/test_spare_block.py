"""The memory that stays between two pictures: who has it, and when it goes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from hart_edge.engines.loading import load
from hart_edge.runtime.spare_block import SpareBlock
from tests.runtime.words_bundle import make_words_bundle


def test_a_block_of_the_same_size_is_the_one_that_was_given_back() -> None:
    spare = SpareBlock()
    block = spare.take(1000)
    spare.give_back(block)
    assert spare.take(1000) is block
    assert spare.take(1000) is not block  # two pictures at a time have two
    spare.give_back(block)
    assert spare.take(999).size == 999
    spare.drop()


def test_the_block_goes_after_a_time_without_use() -> None:
    spare = SpareBlock(idle_seconds=0.05)
    block = spare.take(1000)
    spare.give_back(block)
    for _ in range(200):
        if not spare._spare:
            break
        time.sleep(0.01)
    assert spare.take(1000) is not block


def test_a_block_in_use_does_not_go() -> None:
    spare = SpareBlock(idle_seconds=0.05)
    block = spare.take(1000)
    for _ in range(5):
        spare.give_back(block)
        time.sleep(0.03)
        assert spare.take(1000) is block


def test_memory_of_a_pipeline_that_is_gone_does_not_wait_for_the_timer() -> None:
    spare = SpareBlock()
    block = spare.take(1000)
    spare.give_back(block)
    seen = weakref.ref(block)
    del block, spare
    gc.collect()
    assert seen() is None


def test_low_memory_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # timers of other tests among them, which end when they will
    with load(make_words_bundle(tmp_path / "words"), threads=1, low_memory=True) as pipeline:
        pipeline.generate("w1", seed=1)
        assert before.issuperset(threading.enumerate())  # so no timer holds a block


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_picture_leaves_its_keys_and_values_memory_to_the_next(tmp_path: Path, low_memory: bool) -> None:
    folder = make_words_bundle(tmp_path / "words")
    with load(folder, low_memory=low_memory) as pipeline:
        expected = pipeline.generate("w1", seed=1)
        assert (pipeline._spare is None) == low_memory
        if pipeline._spare is not None:
            (block,) = pipeline._spare._spare
            block[...] = np.random.default_rng(0).integers(0, 256, block.size)  # the next picture overwrites it
            assert pipeline.generate("w1", seed=1).tobytes() == expected.tobytes()
            assert pipeline._spare._spare[0] is block
    assert pipeline._spare is None or not pipeline._spare._spare


def test_pictures_side_by_side_have_blocks_of_their_own(tmp_path: Path) -> None:
    pipeline = load(make_words_bundle(tmp_path / "words"))
    one, other = pipeline.stream("w1", seed=1), pipeline.stream("w2", seed=2)
    images = []
    for first, second in zip(one, other, strict=True):
        images = [first.image, second.image]
    assert [image.tobytes() for image in images if image is not None] == [
        pipeline.generate(prompt, seed=seed).tobytes() for prompt, seed in (("w1", 1), ("w2", 2))
    ]

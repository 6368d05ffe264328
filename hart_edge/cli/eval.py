"""`hart-edge eval`: data, a judge, checkpoints and bundles in; their figures side by side out."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.setting_options import add_setting_arguments, settings_of
from hart_edge.cli.values import thread_number, whole
from hart_edge.errors import InputError

if TYPE_CHECKING:
    from hart_edge.bundle.settings import Settings
    from hart_edge.cli.eval_report import Report
    from hart_edge.evaluation.evaluate import Evaluation, Split
    from hart_edge.evaluation.frechet import Inception
    from hart_edge.evaluation.subjects import Subject
    from hart_edge.reference.checkpoint import Checkpoint

log = logging.getLogger(__name__)

RECONSTRUCTION, GENERATION = "reconstruction", "generation"
VALIDATION, TEST, TRAIN, FAMILIAR = "validation", "test", "train", "familiar"
LEAST = 4  # pictures of a split: a distance needs a covariance, of half of them as well


def add(commands: Commands) -> None:
    p = new_command(
        commands, "eval", "Measure checkpoints and bundles on DIR/validation and DIR/test, side by side.", run
    )
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of hart-edge data, or one like it")
    p.add_argument("--evaluator", type=Path, required=True, metavar="DIR", help="the trained evaluator/ folder")
    several: dict[str, Any] = {"type": Path, "action": "append", "default": [], "metavar": "DIR"}
    p.add_argument("--checkpoint", **several, help="checkpoint to measure by the reference; may be repeated")
    p.add_argument("--bundle", **several, help="bundle to measure; may be repeated")
    p.add_argument("--only", choices=("reconstruction", "generation"), help="measure only this (default: both)")
    p.add_argument(
        "--familiar",
        type=whole(LEAST),
        metavar="N",
        help="also measure N pictures of DIR/train by their first captions, evenly over their groups (default: none)",
    )
    p.add_argument("--pictures", type=int, metavar="N", help="pictures of each split, evenly spaced (default: all)")
    p.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the first picture; the next has N + 1 (default: 0)"
    )
    add_setting_arguments(p, "the checkpoint's or bundle's own")
    p.add_argument("--inception", type=Path, metavar="FILE", help="your Inception weights, for the usual FID as well")
    p.add_argument("--threads", type=thread_number, metavar="N", help="threads (default: torch's choice)")
    p.add_argument("--address", metavar="ADDRESS", help="draw bundles on a Ray cluster: auto, HOST:PORT, or local")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(a: argparse.Namespace, open_inception: Callable[[Path], Inception] | None = None) -> int:
    """open_inception: the function that reads --inception; by default evaluation.frechet's."""
    with needs_extra("evaluation", "train"):
        importlib.import_module("torchmetrics")
    check(a)
    from hart_edge.cli.eval_report import as_json, as_text

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    with cluster(a.address):
        report = evaluate(a, open_inception)
    print(json.dumps(as_json(report)) if a.json else "\n".join(as_text(report)))
    return 0


def check(a: argparse.Namespace) -> None:
    """Refuse options that do not go together. Raises InputError."""
    from hart_edge.runtime.random import check_seed

    if not a.checkpoint and not a.bundle:
        raise InputError("expected --checkpoint DIR or --bundle DIR, found neither; both may be given, and repeated")
    if a.only == RECONSTRUCTION and not a.checkpoint:
        raise InputError(
            f"--only {RECONSTRUCTION}: expected --checkpoint DIR, found only bundles; hart-edge reconstruct shows what "
            "a bundle makes of a picture"
        )
    if a.pictures is not None and a.pictures < LEAST:
        raise InputError(f"--pictures: expected at least {LEAST}, found {a.pictures}; leave it out for all of a split")
    check_seed(a.seed)


def evaluate(a: argparse.Namespace, open_inception: Callable[[Path], Inception] | None = None) -> Report:
    """Everything that can be wrong is found before the first picture is drawn."""
    import torch

    from hart_edge.cli.eval_report import Report
    from hart_edge.evaluation import frechet
    from hart_edge.evaluation.evaluate import Evaluation
    from hart_edge.evaluation.evaluator import open_evaluator
    from hart_edge.evaluation.subjects import reference_of
    from hart_edge.reference.checkpoint import load_checkpoint

    if a.threads is not None:
        torch.set_num_threads(a.threads)
    judge = open_evaluator(a.evaluator)
    inception = None if a.inception is None else (open_inception or frechet.open_inception)(a.inception)
    settings = settings_of(a)
    report = Report(judge.sha256, inception.sha256 if inception else None, a.seed, settings)
    checkpoints = [load_checkpoint(folder) for folder in a.checkpoint]
    subjects: list[Subject] = []
    if a.only != RECONSTRUCTION:
        subjects = [reference_of(checkpoint, settings) for checkpoint in checkpoints]
        subjects += [bundle_subject(folder, settings, a) for folder in a.bundle]
    sides = {subject.side for subject in subjects} | {checkpoint.model.image_size for checkpoint in checkpoints}
    splits = {side: read_splits(a, side) for side in sorted(sides)}
    report.splits.extend(split for each in splits.values() for split in each)
    evaluation = Evaluation(judge, inception)
    if a.only != GENERATION:
        for checkpoint in checkpoints:
            for split in splits[checkpoint.model.image_size]:
                rebuild(evaluation, checkpoint, split, report)
    if subjects:
        report.real.extend((split, evaluation.natural(split, a.seed)) for each in splits.values() for split in each)
        draw(evaluation, subjects, splits, report)
    return report


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Around an evaluation whose bundles are drawn on Ray; nothing without an address."""
    if address is None:
        yield
        return
    with needs_extra("an evaluation on Ray", "ray"):
        from hart_edge.batch.on_ray import connected
    with connected(address):
        yield


def bundle_subject(folder: Path, settings: Settings, a: argparse.Namespace) -> Subject:
    """A bundle to be judged, drawn in this process or on the cluster. Both draw the same pictures."""
    from hart_edge.evaluation.subjects import open_bundle

    if a.address is None:
        return open_bundle(folder, settings, a.threads)
    from hart_edge.batch.drawing import BatchPlan
    from hart_edge.batch.on_ray import BundleOnRay

    return BundleOnRay(BatchPlan(folder, settings, a.threads))


def read_splits(a: argparse.Namespace, side: int) -> list[Split]:
    """Validation, the compositional test split if the data have one, and familiar prompts if they are asked for."""
    from hart_edge.data.pictures import read_pictures
    from hart_edge.evaluation.evaluate import familiar_split, split_of

    names = [VALIDATION]
    if (a.data / TEST).is_dir():
        names.append(TEST)
    else:
        log.info("%s: has no %s/, so only %s is measured", a.data, TEST, VALIDATION)
    splits = [split_of(name, read_pictures(a.data / name, side), a.pictures) for name in names]
    if a.familiar is not None:
        splits.append(familiar_split(FAMILIAR, read_pictures(a.data / TRAIN, side), a.familiar))
    for split in splits:
        if len(split.prompts) < LEAST:
            raise InputError(f"{a.data / split.name}: expected at least {LEAST} pictures, found {len(split.prompts)}")
    return splits


def rebuild(evaluation: Evaluation, checkpoint: Checkpoint, split: Split, report: Report) -> None:
    model, name = checkpoint.model, str(checkpoint.folder)
    log.info("%s, %s: %d pictures by both paths", name, split.name, len(split.prompts))
    began = time.monotonic()
    found = evaluation.rebuilt(name, model.autoencoder, model.quantizer, split, report.seed)
    report.rebuilt.append((name, split, found))
    log.info("%s, %s: reconstruction took %.0f s", name, split.name, time.monotonic() - began)


def draw(
    evaluation: Evaluation,
    subjects: list[Subject],
    splits: dict[int, list[Split]],
    report: Report,
) -> None:
    total = sum(len(split.prompts) for subject in subjects for split in splits[subject.side])
    log.info("%d pictures to draw", total)
    for subject in subjects:
        for split in splits[subject.side]:
            report.drawn.append((subject.name, split, evaluation.drawn(subject, split, report.seed)))

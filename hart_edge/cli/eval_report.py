"""The figures as a person reads them and as JSON; each names what it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hart_edge.bundle.settings import Settings
from hart_edge.cli.tables import table
from hart_edge.evaluation.evaluate import Drawn, Judged, Rebuilt, Split

SHOWN = 16  # digits of a hash
JUDGED = ("Frechet", "FID", "R@1 %", "R@5 %")
REBUILT_HEAD = ("reconstruction", "split", "pictures", "path", "PSNR dB", "SSIM", *JUDGED, "codes used")
DRAWN_HEAD = ("generation", "split", "pictures", *JUDGED, "s/picture")
REBUILT_NOTES = (
    "path: decoded from the latent (continuous) or from the codes (discrete). PSNR, SSIM: means over pictures.",
    "Frechet: of the judge's features from those of the pictures; FID: of Inception's. codes used: of the codebook.",
)
DRAWN_NOTES = (
    "Frechet, FID: of generated pictures from real ones, as above; of real pictures one half's from the other, of half",
    "as many pictures, which makes it larger, most where there are few. s/picture: seconds that drawing took.",
)
NUMBERS = frozenset({*REBUILT_HEAD[4:], *DRAWN_HEAD[3:], "pictures"})


@dataclass(frozen=True)
class Report:
    """What was measured with what. evaluator, inception: SHA-256; real: what real pictures get, by split."""

    evaluator: str
    inception: str | None
    seed: int
    settings: Settings
    splits: list[Split] = field(default_factory=list)
    rebuilt: list[tuple[str, Split, Rebuilt]] = field(default_factory=list)
    drawn: list[tuple[str, Split, Drawn]] = field(default_factory=list)
    real: list[tuple[Split, Drawn]] = field(default_factory=list)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "evaluator": report.evaluator,
        "inception": report.inception,
        "seed": report.seed,
        "sampling": dict(report.settings),
        "data": [
            {
                "split": each.name,
                "side": each.images.shape[1],
                "pictures": len(each.prompts),
                "sha256": each.fingerprint,
            }
            for each in report.splits
        ],
        "reconstruction": [
            {
                "of": name,
                **_data(split),
                "pictures": each.figures.pictures,
                "codes": each.figures.codes,
                "codes_used": each.figures.codes_used,
                "continuous": asdict(each.figures.continuous) | _judged(each.continuous),
                "discrete": asdict(each.figures.discrete) | _judged(each.discrete),
            }
            for name, split, each in report.rebuilt
        ],
        "generation": [{"of": name, **_data(split), **_drawn(each)} for name, split, each in report.drawn],
        "real": [{**_data(split), **_drawn(each)} for split, each in report.real],
    }


def as_text(report: Report) -> list[str]:
    """The lines that a person reads."""
    lines = [f"evaluator {report.evaluator[:SHOWN]}, seed {report.seed}"]
    lines += [
        f"{each.name}: {len(each.prompts)} pictures of {each.images.shape[1]} px, data {each.fingerprint[:SHOWN]}"
        for each in report.splits
    ]
    if report.inception is not None:
        lines.append(f"FID by Inception weights {report.inception[:SHOWN]}")
    if report.rebuilt:
        rows = [row for name, split, each in report.rebuilt for row in _rebuilt_rows(name, split, each)]
        lines += ["", *_without_empty(REBUILT_HEAD, rows), "", *REBUILT_NOTES]
    judged = [rebuilt.discrete for _, _, rebuilt in report.rebuilt]
    judged += [drawn.judged for _, _, drawn in report.drawn]
    if report.drawn or report.real:
        rows = [_drawn_row("real pictures", split, each) for split, each in report.real]
        rows += [_drawn_row(name, split, each) for name, split, each in report.drawn]
        lines += ["", *_without_empty(DRAWN_HEAD, rows), ""]
        lines += DRAWN_NOTES
    if judged:
        one = judged[-1].retrieval
        lines.append(f"R@k: whether a picture's own prompt is among the k closest of {one.among}; mean of {one.groups}")
        lines.append("groups and their standard deviation.")
    return lines


def _rebuilt_rows(name: str, split: Split, each: Rebuilt) -> list[list[str]]:
    figures, rows = each.figures, []
    for path, quality, judged, used in (
        ("continuous", figures.continuous, each.continuous, ""),
        ("discrete", figures.discrete, each.discrete, f"{figures.codes_used} of {figures.codes}"),
    ):
        counts = [name, split.name, str(figures.pictures), path]
        rows.append([*counts, f"{quality.psnr:.2f}", f"{quality.ssim:.4f}", *_judged_cells(judged), used])
    return rows


def _drawn_row(name: str, split: Split, each: Drawn) -> list[str]:
    seconds = f"{each.seconds:.2f}" if each.seconds else ""
    return [name, split.name, str(each.pictures), *_judged_cells(each.judged), seconds]


def _judged_cells(judged: Judged) -> list[str]:
    """The cells of JUDGED."""
    distance, found = judged.distance, judged.retrieval
    around = {k: f" ± {100 * spread:.1f}" if found.groups > 1 else "" for k, spread in found.spread.items()}
    cells = [f"{100 * value:.1f}{around[k]}" for k, value in found.at.items()]
    return [f"{distance.judge:.4f}", "" if distance.inception is None else f"{distance.inception:.2f}", *cells]


def _without_empty(head: Sequence[str], rows: list[list[str]]) -> list[str]:
    """The table without its empty columns."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], NUMBERS)


def _data(split: Split) -> dict[str, Any]:
    return {"split": split.name, "data": split.fingerprint}


def _judged(judged: Judged) -> dict[str, Any]:
    found = judged.retrieval
    return {
        "frechet": judged.distance.judge,
        "fid": judged.distance.inception,
        **{f"r@{k}": value for k, value in found.at.items()},
        **{f"r@{k}_spread": value if found.groups > 1 else None for k, value in found.spread.items()},
        "among": found.among,
        "groups": found.groups,
    }


def _drawn(each: Drawn) -> dict[str, Any]:
    return {"pictures": each.pictures, **_judged(each.judged), "seconds_per_picture": each.seconds or None}

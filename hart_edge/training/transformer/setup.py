"""What a transformer's run is made of: data and tokenizer in, a task for the loop out.

The training pictures become codes (codes.py), the text model is made or opened, a checkpoint's weights are
carried over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from hart_edge.data.pictures import Pictures, read_pictures
from hart_edge.reference.hart import HART
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.transformer import Transformer
from hart_edge.training.captions import Captions, Text, make_text, may_be_mirrored, open_text
from hart_edge.training.order import shares_of
from hart_edge.training.tokenizer.recipe import Tokenizer, open_tokenizer
from hart_edge.training.transformer.codes import Codes, codes_of, digest_of, lesson_of
from hart_edge.training.transformer.recipe import Generator, TransformerRecipe
from hart_edge.training.transformer.start import carry_over, initialise
from hart_edge.training.transformer.task import Examples, TransformerTask

log = logging.getLogger(__name__)

MEASURED = 512  # training pictures whose residuals are measured
MANY = 0.02  # of the residuals out of reach


def set_up(
    accelerator: Accelerator,
    recipe: TransformerRecipe,
    data: Path,
    tokenizer_folder: Path,
    *,
    init: Path | None = None,
    text_model: Path | None = None,
) -> TransformerTask:
    """The task of a run. data: with train/ and validation/; tokenizer_folder: tokenizer/ in the published layout.

    init: a checkpoint in the published layout whose transformer, and text model if it has one, the run begins with;
    text_model: a text_model/ folder to begin with. Raises HartEdgeError.
    """
    tokenizer = open_tokenizer(tokenizer_folder)
    hart = with_tokenizer(recipe, tokenizer)
    with accelerator.main_process_first():  # the main process decodes them, and the others read its cache
        train, validation = (read_pictures(data / part, recipe.side) for part in ("train", "validation"))
    log.info("%d pictures to train on, %d to validate on, %d px", len(train), len(validation), recipe.side)
    if text_model is None and init is not None and (init / "text_model").is_dir():
        text_model = init / "text_model"
    text = text_of(recipe, train, text_model)
    model = new_generator(recipe, tokenizer, text)
    if init is not None:  # before what takes minutes
        carry_over(init, model.transformer, model.residual)
        if (init / "tokenizer").is_dir() and digest_of(open_tokenizer(init / "tokenizer")) != digest_of(tokenizer):
            log.info("%s: has another tokenizer, whose codes mean other things; the transformer relearns them", init)
    hart.autoencoder.to(accelerator.device)
    learned = examples_of(accelerator, hart, text, train, data / "train", mirror=recipe.mirror > 0)
    judged = examples_of(accelerator, hart, text, validation, data / "validation")
    hart.autoencoder.cpu()
    log_residuals_out_of_reach(hart, learned.codes)
    log_how_pictures_are_drawn(recipe, learned)
    fingerprint = fingerprint_of(learned, tokenizer, text)
    return TransformerTask(recipe, model, learned, judged, text, hart, tokenizer_folder, fingerprint)


def with_tokenizer(recipe: TransformerRecipe, tokenizer: Tokenizer) -> HART:
    """The reference at the recipe's scales with a tokenizer's weights; its transformer is yet to be loaded."""
    hart = HART(recipe.transformer, tokenizer.config)
    hart.quantizer.load_state_dict(tokenizer.quantizer.state_dict())
    hart.autoencoder.load_state_dict(tokenizer.autoencoder.state_dict())
    return hart.eval().requires_grad_(False)


def new_generator(recipe: TransformerRecipe, tokenizer: Tokenizer, text: Text) -> Generator:
    """A generator with random weights that follow from the recipe's seed, around a text model."""
    config, sizes = recipe.transformer, tokenizer.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.optimisation.seed)
        transformer = Transformer(config, sizes.vocab_size, sizes.z_channels)
        residual = ResidualMLP(config, sizes.z_channels)
        initialise(transformer, residual)
    return Generator(text.model, transformer, residual, recipe.scale_balance)


def examples_of(
    accelerator: Accelerator, hart: HART, text: Text, pictures: Pictures, folder: Path, *, mirror: bool = False
) -> Examples:
    """Pictures with their codes, and with those of their mirror images if `mirror`."""
    captions = Captions(text.tokenizer, pictures.captions, pictures.names)
    if captions.cut:
        total, tokens = len(captions.ids), text.tokenizer.length
        log.info("%s: %d of %d captions are cut to their first %d tokens", folder, captions.cut, total, tokens)
    known = (accelerator, hart.autoencoder, hart.quantizer, pictures.images, folder)
    codes, twins, twin_of = codes_of(*known), None, None
    if mirror:
        mirrorable = np.array([may_be_mirrored(own) for own in pictures.captions])
        log.info("%d of %d pictures may be mirrored, by their captions", mirrorable.sum(), len(pictures))
        if mirrorable.any():
            twins = codes_of(*known, mirrored=mirrorable.nonzero()[0])
            twin_of = np.where(mirrorable, mirrorable.cumsum() - 1, -1)
    return Examples(pictures.images, captions, codes, twins, twin_of, pictures.groups, pictures.weights)


def text_of(recipe: TransformerRecipe, train: Pictures, folder: Path | None) -> Text:
    """The text model of a folder, or a new one with a tokenizer of the training captions."""
    width, tokens = recipe.transformer.context_dim, recipe.transformer.context_token
    if folder is not None:
        return open_text(folder, recipe.text, width, tokens)
    captions = (caption for own in train.captions for caption in own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.optimisation.seed)
        return make_text(recipe.text, width, tokens, captions)


def log_residuals_out_of_reach(hart: HART, codes: Codes) -> None:
    """Sampling clips residuals to [-1, 1] times RESIDUAL_SCALE; a tokenizer whose residuals are larger loses by it."""
    rows = np.linspace(0, len(codes) - 1, min(MEASURED, len(codes))).astype(np.int64)
    residual = lesson_of(hart.quantizer, codes, rows).residual
    share, spread = float((residual.abs() > 1).float().mean()), float(residual.std())
    words = "; a tokenizer with a smaller residual would lose less" if share > MANY else ""
    log.info("residuals: spread %.2f of their scale, %.2f %% out of sampling's reach%s", spread, 100 * share, words)


def log_how_pictures_are_drawn(recipe: TransformerRecipe, train: Examples) -> None:
    """What draws by group and weight come to; nothing where all pictures are drawn alike."""
    shares = shares_of(train.groups, train.weights, recipe.group_balance)
    if shares is not None:
        o = recipe.optimisation
        low, middle, high = np.quantile(shares, (0, 0.5, 1)) * o.steps * o.batch
        groups = len(set(train.groups) - {""}) + train.groups.count("")
        log.info("%d groups of pictures; a picture is seen %.1f to %.1f times, median %.1f", groups, low, high, middle)


def fingerprint_of(train: Examples, tokenizer: Tokenizer, text: Text) -> str:
    """Of all that a run follows from besides its recipe: tokenizer, pictures, captions, and the text model's shape."""
    digest = hashlib.sha256(digest_of(tokenizer).encode())
    digest.update(np.ascontiguousarray(train.images).data)
    digest.update(train.captions.ids.tobytes() + train.captions.counts.tobytes())
    if any(train.groups) or len(set(train.weights)) > 1:
        digest.update(json.dumps([train.groups, train.weights]).encode())
    digest.update(json.dumps(text.files, sort_keys=True).encode())
    digest.update(text.model.model.config.to_json_string().encode())
    return digest.hexdigest()

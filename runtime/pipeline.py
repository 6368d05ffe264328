"""What the user holds: prompts, seeds and settings in, pictures out, scale by scale if wanted.

Last link of the chain. Every picture of a list is made on its own, so memory does not grow with the list and each
equals the same prompt generated alone, byte for byte.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hart_edge.bundle.manifest import ComponentName
from hart_edge.bundle.memory import MemoryRules, shortage_told
from hart_edge.bundle.settings import Sampling, Settings, Speed
from hart_edge.bundle.verify import Bundle
from hart_edge.errors import BundleError, EngineError, InputError, bordered
from hart_edge.runtime.context import Context, check_context
from hart_edge.runtime.fill import fill_with
from hart_edge.runtime.kept_prompts import KeptPrompts, prompt_key
from hart_edge.runtime.loop import Array, DeviceRunner, Fill, HostPass, Known, Pass, Runner, Unloader, read_prompt
from hart_edge.runtime.pictures import to_image, to_square
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer, tokenizer_of
from hart_edge.runtime.settings import check_seeds, check_settings, explained
from hart_edge.runtime.spare_block import SpareBlock
from hart_edge.runtime.turns import Turns

drawing = bordered(EngineError, "failed", "see hart-edge doctor, and report it if it happens again", subject="drawing")


class RandomWeightsWarning(UserWarning):
    """The weights of a bundle are random numbers, so its pictures show noise."""


@dataclass(frozen=True, eq=False)
class Event:
    """A finished scale, of stream(). `image` is there when `done`; preview() decodes what there is so far.

    scale: 0 for the first to scales - 1 for the last, as in the names of preview files and in all tables.
    """

    scale: int
    scales: int
    image: Image.Image | None
    _pipeline: Pipeline = field(repr=False)
    _f_hat: Array | None = field(repr=False)  # None where there is an image

    @property
    def done(self) -> bool:
        return self.image is not None

    def preview(self) -> Image.Image:
        """The picture as of this scale; costs one run of the decoder."""
        if self.image is not None:
            return self.image
        assert self._f_hat is not None  # an event has one of the two
        return self._pipeline.decode(self._f_hat)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A picture that came back. given: what the encoder saw; continuous: from the latent itself; discrete: from codes
    of all scales, which are all that a transformer predicts; codes: (sum of p*p,) int64, coarse to fine."""

    given: Image.Image
    continuous: Image.Image
    discrete: Image.Image
    codes: NDArray[np.int64]


class _Closed:
    """In the place of the runner of a pipeline that was closed."""

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        raise EngineError(
            "expected an open pipeline, found one that was closed (close(), or the end of its with block); load the "
            "bundle again"
        )


class Pipeline:
    """A loaded bundle, from hart_edge.load().

        with hart_edge.load("bundles/mine") as pipe:
            pipe.generate("a red heart", seed=7).save("heart.png")

    Any number of threads may generate with it at a time, each picture with buffers of its own; with low_memory and on
    a GPU it draws one picture at a time, and raises BusyError for a second. In a child that was forked it opens its
    graphs anew, on a GPU it refuses. It pickles as its folder and options: whoever unpickles it loads the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        runner: Runner,
        *,
        low_memory: bool = False,
        memory: MemoryRules | None = None,
        reopen: Callable[[], Pipeline] | None = None,
    ) -> None:
        """runner: runs the bundle's graphs in the engine library of its target (engines/loading.py opens both).

        memory: how that library takes memory, so that refused memory is told with what the bundle needs.
        reopen: loads the same bundle again, in another process; what a pickle holds. Without it nothing is pickled.
        """
        self.bundle, self.manifest, self.runner, self.low_memory = bundle, bundle.manifest, runner, low_memory
        self._memory, self._reopen = memory, reopen
        self._turns = Turns() if low_memory or isinstance(runner, DeviceRunner) else None
        self._tokenizer: PromptTokenizer | None = None
        self._spare = None if low_memory else SpareBlock()
        # A first scale is not copied from and to a device: computing it again is expected to take no longer.
        first_scales = not low_memory and not isinstance(runner, DeviceRunner)
        self._kept = KeptPrompts(tuple(self.manifest.plans.values()), first_scales=first_scales)

    def __reduce__(self) -> tuple[Callable[[], Pipeline], tuple[()]]:
        if self._reopen is None:
            raise TypeError(
                "expected a pipeline from hart_edge.load(), found one made of parts, which cannot be pickled"
            )
        return self._reopen, ()

    def forget(self) -> None:
        """Forget what was computed of earlier prompts: the next picture takes the time of a new prompt."""
        self._kept.forget()

    def close(self) -> None:
        """Give back what the graphs hold. From then on it draws nothing; closing it again does nothing.

        A pipeline that is no longer referred to is closed as well; `with hart_edge.load(...) as pipe:` closes it at the
        end of the block.
        """
        self.runner = _Closed()
        self._kept.forget()
        if self._spare is not None:
            self._spare.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str too, and the first that fits is taken
        self, prompt: str | Context, *, seed: int | Sequence[int] = 0, **settings: Unpack[Settings]
    ) -> Image.Image: ...

    @overload
    def generate(
        self, prompt: Sequence[str | Context], *, seed: int | Sequence[int] = 0, **settings: Unpack[Settings]
    ) -> list[Image.Image]: ...

    @explained
    def generate(
        self,
        prompt: str | Context | Sequence[str | Context],
        *,
        seed: int | Sequence[int] = 0,
        **settings: Unpack[Settings],
    ) -> Image.Image | list[Image.Image]:
        """Generate a picture, or a list of them for a list of prompts.

        prompt: text, or a Context for a bundle without a text model. seed: 0 to 2**64 - 1, one for all or one for
        each. Returns RGB images of image_size. Raises InputError for bad input, GenerationError rather than return a
        picture that holds NaN, BusyError as above, BundleError where the bundle changed meanwhile, OutOfMemoryError;
        warns with RandomWeightsWarning where the weights are random.

            image = pipe.generate("a red heart", seed=7, top_k=50)
            images = pipe.generate(["a red heart", "a green heart"], seed=[1, 2])

        Settings, each by default the bundle's own:
        {settings}
        """
        self._warn_if_random()
        sampling = self._check(settings)
        if isinstance(prompt, str | bytes | Context) or not isinstance(prompt, Sequence):
            (own,) = check_seeds(seed, 1)
            return self._last(self._run(self._inputs(prompt), own, sampling, previews=False))
        seeds = check_seeds(seed, len(prompt))
        inputs = [self._inputs(one) for one in prompt]  # all of them are checked before the first is drawn
        return [
            self._last(self._run(one, own, sampling, previews=False)) for one, own in zip(inputs, seeds, strict=True)
        ]

    @explained
    def stream(
        self,
        prompt: str | Context,
        *,
        seed: int | Sequence[int] = 0,
        **settings: Unpack[Settings],
    ) -> Iterator[Event]:
        """Generate one picture scale by scale; yields an Event per scale, the last one with the picture.

        Arguments and errors as generate(); they are checked at once. Closing the iterator stops the work.

            for event in pipe.stream("grinning face", seed=3):
                event.preview().save(f"scale{event.scale}.png")
            event.image.save("face.png")

        {settings}
        """
        self._warn_if_random()
        sampling = self._check(settings)
        (own,) = check_seeds(seed, 1)
        return self._run(self._inputs(prompt), own, sampling, previews=True)

    @drawing
    def reconstruct(self, image: Image.Image) -> Reconstruction:
        """A picture through the bundle's own tokenizer and back, which shows what it can express at best.

        image: any size and mode; it is cut to a square in the middle, made image_size, and laid on white where it is
        transparent. Raises BundleError for a bundle without an encoder, and what generate() raises.

            back = pipe.reconstruct(Image.open("cat.png"))
            back.discrete.save("codes.png")
        """
        m = self.manifest
        if all(each.name != ComponentName.ENCODER for each in m.components):
            raise BundleError(f"bundle {m.name!r} has no encoder, so it reads no picture; build it again")
        side, final, count = m.image_size, m.patch_nums[-1], sum(side * side for side in m.patch_nums)
        given = to_square(image, side)
        pixels = np.asarray(given, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1  # (1, 3, H, W)
        latent, f_hat = (np.empty((1, m.z_channels, final, final), np.float32) for _ in range(2))
        codes = np.empty((1, count), np.int64)
        with self._at_work():
            self.runner.run(
                "encoder",
                {"image": np.ascontiguousarray(pixels)},
                {"latent": latent, "f_hat": f_hat, "indices": codes},
            )
        return Reconstruction(given, self.decode(latent), self.decode(f_hat), codes[0])

    @drawing
    def encode(self, prompt: str) -> Context:
        """What the text model makes of a prompt: the Context that a bundle without one draws from.

        Raises InputError for a prompt that cannot be used, and where this bundle holds no text model; else as
        generate().
        """
        if self.manifest.tokenizer is None:
            raise InputError(
                f"bundle {self.manifest.name!r} holds no text model: expected one that reads prompts; build it from a "
                "checkpoint with text_model/"
            )
        inputs = self._inputs(prompt)
        with nullcontext() if self._turns is None else self._turns.drawing():
            self.bundle.require_unwritten()
            key = prompt_key(inputs)
            made = self._kept.context(key)
            if made is None:
                with self._at_work():
                    made = read_prompt(self.manifest.plan, self.runner, lambda name, _: inputs[name]).values
                    if self.low_memory and isinstance(self.runner, Unloader):
                        self.runner.unload(ComponentName.TEXT_MODEL)
                self.bundle.require_unwritten()
                self._kept.keep_context(key, made)
        return Context(made["context"][0].copy(), made["context_mask"][0].copy())

    @drawing
    def decode(self, f_hat: NDArray[np.float32]) -> Image.Image:
        """f_hat: (1, Z, P, P) float32 -> picture"""
        side = self.manifest.image_size
        with self._at_work():
            pixels, finite = np.empty((1, side, side, 3), np.uint8), np.empty(1, np.bool_)
            self.runner.run("decoder", {"f_hat": f_hat}, {"pixels": pixels, "finite": finite})
        return to_image(pixels, finite)

    def _warn_if_random(self) -> None:
        if self.manifest.random:
            warnings.warn(
                f"the weights of bundle {self.manifest.name!r} are random: its pictures show noise, and only the time "
                "and memory that they take mean anything",
                RandomWeightsWarning,
                stacklevel=3,
            )

    def _check(self, settings: Settings) -> Sampling:
        return check_settings(self.manifest.sampling, settings, speeds=self.manifest.plans)

    @drawing
    def _inputs(self, prompt: object) -> dict[str, Array]:
        """The buffers of kind input for one prompt."""
        m = self.manifest
        if m.tokenizer is None:
            if not isinstance(prompt, Context):
                raise InputError(
                    f"bundle {m.name!r} holds no text model: expected a Context of tokens ({m.context_tokens}, "
                    f"{m.context_dim}) and mask ({m.context_tokens},), found {type(prompt).__name__}; compute it with "
                    "your text model, or build from a checkpoint with text_model/"
                )
            return check_context(prompt, m.context_tokens, m.context_dim)
        if isinstance(prompt, Context):
            raise InputError(f"bundle {m.name!r} holds a text model: expected a prompt, found a Context; pass the text")
        with shortage_told(m, self._memory, low_memory=self.low_memory):
            if self._tokenizer is None:
                self._tokenizer = tokenizer_of(self.bundle)
            assert self._tokenizer is not None  # the manifest has one
            return {"input_ids": self._tokenizer.encode(prompt)}

    def fill(self, prompt: str | Context, seed: int) -> Fill:
        """What makes the arrays of a picture's inputs, settings and noise, for callers that run the plan themselves."""
        (own,) = check_seeds(seed, 1)
        return self._fill(self._inputs(prompt), own, self.manifest.sampling)

    def _fill(self, inputs: dict[str, Array], seed: int, sampling: Sampling) -> Fill:
        return fill_with(inputs, seed, sampling, self.bundle.constant)

    @drawing
    def _run(self, inputs: dict[str, Array], seed: int, sampling: Sampling, *, previews: bool) -> Iterator[Event]:
        """previews: yield every scale, whose f_hat a device must then copy to the host; without, the last one alone."""
        scales = len(self.manifest.patch_nums)
        with nullcontext() if self._turns is None else self._turns.drawing():
            self.bundle.require_unwritten()
            with self._at_work():
                key = prompt_key(inputs)
                known = self._kept.find(key)
                drawing = self._begin(self._fill(inputs, seed, sampling), sampling.speed, known)
            finished = drawing.scales()
            while (scale := self._next(finished)) is not None:
                if scale == 0:
                    with self._at_work():
                        self._kept.keep(key, known, drawing.read)
                if previews and scale < scales - 1:
                    with self._at_work():
                        f_hat = drawing.read(f"f_hat.{scale}")
                    yield Event(scale, scales, None, self, f_hat)
            with self._at_work():
                image = to_image(drawing.read("pixels"), drawing.read("finite"))
            self.bundle.require_unwritten()  # the graphs were those that were verified to the end
        yield Event(scales - 1, scales, image, self, None)

    def _next(self, finished: Iterator[int]) -> int | None:
        """Draw to the end of the next scale; None behind the last."""
        with self._at_work():
            return next(finished, None)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Around every use of the runner."""
        turn = nullcontext() if self._turns is None else self._turns.working()
        with shortage_told(self.manifest, self._memory, low_memory=self.low_memory), turn:
            yield

    def _begin(self, fill: Fill, speed: Speed, known: Known | None) -> Pass:
        wanted = self._kept.wanted(known)
        if isinstance(self.runner, DeviceRunner):
            return self.runner.begin(fill, known, wanted)  # which has the exact speed alone
        return HostPass(
            self.manifest.plans[speed],
            self.runner,
            fill,
            low_memory=self.low_memory,
            known=known,
            wanted=wanted,
            spare=self._spare,
        )

    def _last(self, events: Iterator[Event]) -> Image.Image:
        image = [event for event in events][-1].image
        assert image is not None  # the last event of a stream is the finished one
        return image

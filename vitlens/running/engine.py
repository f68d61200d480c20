"""The engine: one forward pass per batch and condition serves all analyses; rows are kept per image."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from ..errors import AnalysisError
from ..files import as_path
from ..images import (
    BAD_IMAGES,
    Condition,
    ImageDataset,
    OnBadImage,
    check,
    fingerprint,
    known,
    numbered_batches,
    parse_conditions,
)
from ..images.bad_images import check_on_bad_image, refuse_kept, warn_of
from ..images.values import is_whole
from ..models import HookedViT, weights_sha256
from .analysis import AnyAnalysis, analysis_identity
from .checkpoints import as_models, normalization, same_architecture, warn_of_normalizations
from .finiteness import NOT_FINITE, Saying
from .measurement import Measurement, Sums
from .passes import check_precision, measuring
from .ranks import Ranks, ranks
from .reading import Reading
from .rows import joined
from .store import Store, is_complete


def run(
    model: HookedViT | Mapping[str, HookedViT],
    dataset: ImageDataset,
    analyses: Sequence[AnyAnalysis],
    *,
    conditions: Sequence[Any] = ("clean",),
    batch_size: int = 32,
    seed: int = 0,
    precision: str | None = None,
    output: str | os.PathLike[str] | None = None,
    shard_images: int = 256,
    num_workers: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> xr.Dataset:
    """Measure a model, or several checkpoints in step, on images under conditions.

    Each image is read once and corrupted once for all checkpoints, and one forward pass per batch,
    condition and checkpoint serves all analyses. Memory does not grow with the number of images beyond
    their rows; with `output`, rows are kept there as they come.

    Under `torchrun` or `accelerate launch` each process measures its share of the batches, and each returns
    the whole result: every image once, in order, the same numbers that a single process gives. The folder
    of `output` has to be one that all processes see. Sums of set statistics are added up in another order,
    so those agree to rounding in float64.

    Args:
        model: the model, or checkpoint name -> model, all of one architecture, the first of which paired
            analyses refer to. Each is run in evaluation mode and left as it was. Every model normalizes the
            pixels in its own way; a warning says so where those differ.
        dataset: items `{"pixels": [3 height width] in [0, 1], "label": int, "image_id": str}`: a torch
            Dataset, a sequence or an iterable, read once.
        analyses: what to measure: `Analysis`, `PairedAnalysis`, `GradientAnalysis` and `SetStatistic`.
        conditions: `"clean"`, `"gaussian_blur@3"`, `"pgd:eps=4/255,steps=10"`, or one's own
            `{"name": callable on a batch}`. An attack is made on each checkpoint by itself; with `on=base` on
            the checkpoint `base` alone, and all see its pixels. One model alone is called `model`.
        batch_size: images in a forward pass; no value depends on it but by rounding.
        seed: of the corruptions; they depend on (seed, image id, corruption, severity) alone.
        precision: `"bfloat16"` or `"float16"` runs matrix products in mixed precision, those of readouts and
            further passes that analyses make included; None keeps the model's own. Results are float32.
        output: a folder to write rows to as they come. A run that was killed goes on where it stopped when
            it is called again, and gives the same result; one that is complete is read back. It is told
            from other runs by weights, conditions, analyses (their `repr`), seed, batch size, precision
            and what is known of the images beforehand (`vitlens.images.fingerprint`).
        shard_images: with `output`, how many images are written together; so many are measured again after
            a kill, at most.
        num_workers: processes that load images ahead of the model; with 0 they are loaded in between.
        on_bad_image: what becomes of an image that cannot be read: `"skip"` leaves it out for all
            checkpoints and conditions, warns at the end and says so in `attrs["bad_images"]` (image id, or
            position where ids are not known, -> reason; the attribute is there only if there are any);
            `"raise"` stops at the first. Where none of the first images can be read, or more than a tenth of
            50 or more, it stops in any case, as it does for what is read and malformed. In `output` an
            image stays left out when its file is mended.
        progress: show a bar with images (times conditions), rate and condition.

    Returns:
        Every analysis's variables, with dims (condition, image, ...), and `checkpoint` before them where
        several were given. Set statistics have no `image`; what an analysis made of named images only
        stands along `named_image`. Where an activation that an analysis reads, or a logit, is NaN or
        infinite, as after an overflow in half precision, a warning says so once, the attribute `not_finite`
        of the rows says where and of how many images, and what cannot be known is NaN.

    Raises:
        AnalysisError: two analyses give a variable of one name, one breaks the protocol or cannot run on
            this model, or `output` holds another run.
        BusyError: another process is at work in `output`.
        ArchitectureError: the checkpoints are of different architectures.
        ConditionError, DatasetError, LabelError, PixelError: what is asked for or given cannot be used.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> conditions = ["clean", "contrast@3"]
        >>> data = vl.run(model, images, [vl.Prediction()], conditions=conditions, progress=False)
        >>> dict(data.sizes)
        {'condition': 2, 'image': 4}
        >>> both = vl.run({"a": model, "b": model}, images, [vl.Prediction()], progress=False)
        >>> dict(both.sizes)
        {'checkpoint': 2, 'condition': 1, 'image': 4}
    """
    models = as_models(model)
    asked = parse_conditions(conditions)
    same_architecture(models)
    check_precision(precision)
    check_on_bad_image(on_bad_image)
    check_whole(batch_size, "batch_size", 1, "32")
    check_whole(seed, "seed", 0, "0")
    if not isinstance(analyses, Iterable):
        raise AnalysisError(
            f"analyses is a {type(analyses).__name__}.",
            expected="a list of analyses",
            remedy="Write [vitlens.Prediction()], say.",
        )
    if output is not None:
        output = as_path(output, "output", AnalysisError)
        if output.exists() and not output.is_dir():
            raise AnalysisError(
                f"{output} is a file.",
                expected="a folder, new or that of this run",
                remedy="Name another output.",
            )
    if shard_images < 1:
        raise AnalysisError(
            f"shard_images is {shard_images}.", expected="1 or more", remedy="Leave it out for 256."
        )
    first = next(iter(models.values()))
    check(dataset, first.cfg.n_classes or None)
    warn_of_normalizations(models, stacklevel=2)
    measurement = Measurement(models, asked, analyses, precision, seed)
    measurement.check_named(known(dataset, "image_ids"))
    with ranks() as shared:
        if output is not None:
            part_images: int | None = shard_images
        else:
            # In memory a part is what a process takes at a time: alone, everything.
            part_images = batch_size if shared.n_ranks > 1 else None
        reading = Reading(dataset, batch_size, num_workers, part_images, on_bad_image)
        store = None
        if output is not None:
            described = _manifest(models, asked, analyses, reading, seed, precision, shard_images)
        # A finished run is read back, by as many at a time as like.
        is_done = output is None or is_complete(output, reading.n_parts, bool(measurement.set_statistics))
        with shared.claiming(None if is_done else output):
            if output is not None:
                store = _opened(output, described, shared)
                if on_bad_image == "raise":
                    kept = store.bad_images().values()
                    refuse_kept({image: why for each in kept for image, why in each.items()}, store.folder)
            with measuring(list(models.values())):
                data = _measured(measurement, reading, store, shared, progress)
    if shared.rank == 0:
        warn_of(data.attrs.get(BAD_IMAGES, {}), data.sizes["image"])
    return data if not isinstance(model, HookedViT) else data.isel(checkpoint=0, drop=True)


def check_whole(value: object, name: str, least: int, default: str) -> None:
    """Refuse what is no whole number of `least` or more.

    Raises:
        AnalysisError: it is none.
    """
    if not is_whole(value) or value < least:  # type: ignore[operator]
        raise AnalysisError(
            f"{name} is {value!r}.",
            expected=f"a whole number of {least} or more",
            remedy=f"Leave it out for {default}.",
        )


def _measured(
    measurement: Measurement, reading: Reading, store: Store | None, shared: Ranks, progress: bool
) -> xr.Dataset:
    """This process's share, and then everybody's."""
    tables: dict[int, xr.Dataset] = {}
    sums = Sums(measurement)
    saying = Saying(measurement.models.values(), measurement.precision)
    with shared.together("measuring"):
        _measure_share(measurement, reading, store, shared, progress, tables, sums, saying)
    if store is not None:
        data = joined(store.rows())
        everyones = [packed for packed, _ in store.sums().values()]
    else:
        gathered = [part for each in shared.gather(tables, "rows") for part in each.items()]
        data = joined(table for _, table in sorted(gathered, key=lambda part: part[0]))
        everyones = shared.gather(sums.packed(), "sums")
    saying.say(data.attrs.get(NOT_FINITE, ()), stacklevel=3)
    total = Sums(measurement)
    for packed in everyones:
        total.add(packed)
    return total.finished(data)


def _measure_share(
    measurement: Measurement,
    reading: Reading,
    store: Store | None,
    shared: Ranks,
    progress: bool,
    tables: dict[int, xr.Dataset],
    sums: Sums,
    saying: Saying,
) -> None:
    """Measure the parts that are this process's and not yet measured."""
    has_sums = bool(measurement.set_statistics)
    rows_of = {} if store is None else store.measured()
    stored_sums = store.sums() if store is not None and has_sums else {}
    packed, covered = stored_sums.get(shared.rank, ({}, []))
    sums.add(packed)
    summed = {part for _, parts in stored_sums.values() for part in parts}
    done = {part for part in rows_of if part in summed or not has_sums}

    def is_mine(part: int) -> bool:
        return shared.has(part) and part not in done

    n_before = sum(n for part, n in rows_of.items() if part in done and shared.has(part))
    bad_before = {} if store is None else store.bad_images()
    n_bad_before = sum(len(bad) for part, bad in bad_before.items() if part in done and shared.has(part))
    n_now = reading.n_images_in(is_mine)
    n_conditions = len(measurement.conditions)
    bar = tqdm(
        total=None if n_now is None else (n_before + n_now) * n_conditions,
        initial=n_before * n_conditions,
        desc="measuring",
        unit="image",
        disable=not progress or shared.rank > 0,
    )
    batches = numbered_batches(
        reading.dataset,
        reading.batch_size,
        wanted=lambda number: is_mine(reading.part_of(number)),
        n_classes=measurement.n_classes,
        image_size=measurement.image_size,
        num_workers=reading.num_workers,
        on_bad_image=reading.on_bad_image,
        n_read=n_before + n_bad_before,
        n_bad=n_bad_before,
    )
    rows, part = measurement.rows(), 0

    def keep() -> None:
        if store is None:
            tables[part] = rows.table()
            return
        store.write(part, rows.table())
        if has_sums and part not in summed:
            covered.append(part)
            store.write_sums(shared.rank, sums.packed(), covered)

    with bar, contextlib.closing(batches):
        for number, batch, bad_images in batches:
            part = reading.part_of(number)
            rows.bad_images |= bad_images
            if batch is not None:
                # A shard that was lost is measured again, but what it added to the sums is still there.
                measurement.measure(batch, rows, None if part in summed else sums, bar)
                saying.say(rows.not_finite.records(), stacklevel=4)
            if reading.part_of(number + 1) != part:
                keep()
                rows = measurement.rows()
        if rows:
            keep()


def _opened(output: str | os.PathLike[str], described: Mapping[str, Any], shared: Ranks) -> Store:
    """The folder of the run. The first process makes it, so that the others find the manifest and compare."""
    store: Store | None = None
    with shared.together("making the folder of the output"):
        if shared.rank == 0:
            store = Store(output, described)
            store.clear()
    return store or Store(output, described)


def _manifest(
    models: Mapping[str, HookedViT],
    conditions: Sequence[Condition],
    analyses: Sequence[AnyAnalysis],
    reading: Reading,
    seed: int,
    precision: str | None,
    shard_images: int,
) -> dict[str, Any]:
    return {
        "checkpoints": {name: weights_sha256(model) for name, model in models.items()},
        "normalization": {name: normalization(model) for name, model in models.items()},
        "conditions": [condition.identity for condition in conditions],
        "analyses": [analysis_identity(analysis) for analysis in analyses],
        "seed": seed,
        "batch_size": reading.batch_size,
        "shard_images": shard_images,
        "precision": precision,
        "images": fingerprint(reading.dataset),
    }

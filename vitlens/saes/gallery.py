"""The door to galleries: the images on which features are active, for one checkpoint or a matched pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ..errors import ConditionError, SAEError
from ..images import ImageDataset, OnBadImage, parse_condition
from ..models import HookedViT
from ..running import same_architecture
from ._sae_lens import SAE
from .feature_choice import CHOICES, check_choice, choose_features
from .gallery_data import Gallery
from .gallery_pass import GalleryPass, Side
from .reading import place_of

_PAIR_COLUMNS = ("feature_a", "feature_b")


def gallery(
    sae: SAE,
    model: HookedViT,
    dataset: ImageDataset,
    features: Sequence[int] | None = None,
    *,
    choose: str = "random",
    n_features: int = 24,
    n_top_images: int = 9,
    n_middle_images: int = 3,
    condition: Any = "clean",
    class_names: Sequence[str] | None = None,
    hook_name: str | None = None,
    tokens: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> Gallery:
    """Show features of an SAE: the images with their largest codes, and others on which they are active.

    An image counts by its largest code over the tokens that the SAE reads, and is shown once; of equal ones,
    that which comes first. Top images flatter: so some images of the middle half are drawn besides, from
    those between the quartiles of all images on which the feature is active.

    One pass over the data set. What is held are the features' codes of one batch, the pixels of at most
    `n_top_images` + 6 · `n_middle_images` images a feature, and two numbers an image and feature.

    Args:
        sae: in its inference form, on any device.
        model: the checkpoint whose activations are coded.
        dataset: items as in `vitlens.run`, read once; twice where features are to be chosen.
        features: which to show; None chooses some by a pass of its own.
        choose: which to choose: `random`, drawn from those that are active at all; `most_active`, those
            active on the most tokens; `class_lift`, those that best tell a class: by the lower end of the
            95 % interval of the share of a class's images on which they are active, over that share of all
            images, among features active on at least 5 images.
        n_features: how many to choose.
        n_top_images: images with the largest codes.
        n_middle_images: images drawn from the middle half.
        condition: what is done to the images first.
        class_names: names of the classes, by index.
        hook_name: where to read; by default what `sae.cfg.metadata` says. Another one gives a warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says.
        batch_size: images in a forward pass.
        seed: of the draws and of the corruption.
        on_bad_image: as in `vitlens.run`.
        progress: show a bar.

    Returns:
        The gallery: a table, figures and an HTML page of it are its methods.

    Raises:
        SAEError: the SAE is in its training form or of another width than the hook, it is not known where it
            reads, a feature is none of its, or features are to be chosen from what can be read only once.
        HookError: the model has no such hook.
        ArchitectureError: the model has no such tokens, or they stand in no grid.
        ConditionError, DatasetError, LabelError, PixelError: as in `vitlens.run`.

    Example:
        >>> import tempfile, timm, vitlens as vl
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=2)
        >>> model, images = vl.HookedViT(vit), [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.1.hook_resid_post")
        >>> sae = vl.saes.train(source, d_sae=16, k_per_token=2, batch_size=8, progress=False)
        >>> shown = gallery(sae, model, images, choose="most_active", n_features=2, progress=False)
        >>> shown
        Gallery(2 features, model, 12 images)
        >>> shown.table().columns.tolist()[:6]
        ['exhibit', 'checkpoint', 'feature', 'picked', 'place', 'image_id']
        >>> len(shown.figures())
        2
        >>> shown.report(tempfile.mkdtemp() + "/gallery.html").name
        'gallery.html'
    """
    place = place_of(sae, hook_name, tokens)
    a_pass = GalleryPass(
        (Side("model", sae, model, place),), parse_condition(condition), seed, batch_size, on_bad_image
    )
    a_pass.check(n_top_images, n_middle_images)
    if features is None:
        check_choice(choose, n_features)
        if isinstance(dataset, Iterator):
            raise SAEError(
                f"No features are given, and the data set is a {type(dataset).__name__}, which is used up "
                "after one pass.",
                expected="features=[...], or a data set that can be read twice",
                remedy="Name the features, or pass a list or a torch Dataset.",
            )
        features = choose_features(a_pass, dataset, choose, n_features, progress=progress)
        said = f"{len(features)} of {sae.cfg.d_sae:,}, {CHOICES[choose]}"
    else:
        features = _checked(features, sae, "features")
        if len(set(features)) < len(features):
            raise SAEError(
                f"features holds a feature twice: {features}.",
                expected="each feature once",
                remedy="Use list(dict.fromkeys(features)).",
            )
        said = f"{len(features)} of {sae.cfg.d_sae:,}, named"
    return a_pass.gallery(
        dataset,
        [features],
        [{} for _ in features],
        n_top_images=n_top_images,
        n_middle_images=n_middle_images,
        class_names=class_names,
        said=said,
        progress=progress,
    )


def pair_gallery(
    saes: Mapping[str, SAE],
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    pairs: pd.DataFrame,
    n_top_images: int = 9,
    n_middle_images: int = 3,
    condition: Any = "clean",
    class_names: Sequence[str] | None = None,
    hook_name: str | None = None,
    tokens: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> Gallery:
    """Show matched features of two checkpoints' SAEs side by side on the same images.

    For each pair, the images that either checkpoint would show in a `gallery` of its own, in one order. Both
    see the same pixels, and the data set is read once.

    Args:
        saes: checkpoint name -> its SAE; two, the first being the a of the match.
        models: checkpoint name -> model, of the same names and of one architecture.
        dataset: items as in `vitlens.run`, read once.
        pairs: rows of a match's `pairs`: `feature_a`, `feature_b`, and what else is to be shown of a pair,
            such as `decoder_cosine`. A match lists the most alike first: draw some for a fair picture, by
            `pairs.sample(24, random_state=0)`.
        n_top_images: images with the largest codes, for each checkpoint.
        n_middle_images: images drawn from the middle half, for each checkpoint.
        condition: what is done to the images first.
        class_names: names of the classes, by index.
        hook_name: as in `gallery`.
        tokens: as in `gallery`.
        batch_size: images in a forward pass.
        seed: of the draws and of the corruption.
        on_bad_image: as in `vitlens.run`.
        progress: show a bar.

    Returns:
        The gallery.

    Raises:
        SAEError: there are not two checkpoints of the same names, `pairs` lacks a column or holds a feature
            that is none, the SAEs read different tokens; else as in `gallery`.
        ArchitectureError: the models differ in architecture; else as in `gallery`.
        ConditionError: under the condition each checkpoint sees pixels of its own; else as in `gallery`.

    Example:
        >>> import timm, vitlens as vl
        >>> small = dict(img_size=32, num_classes=10, depth=2)
        >>> models = {
        ...     name: vl.HookedViT(timm.create_model("vit_tiny_patch16_224", **small))
        ...     for name in ("base", "tuned")
        ... }
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, progress=False)
        >>> saes = {
        ...     name: vl.saes.train((model, images, "blocks.1.hook_resid_post"), **settings)
        ...     for name, model in models.items()
        ... }
        >>> match = vl.saes.match(saes["base"], saes["tuned"], progress=False)
        >>> pair_gallery(saes, models, images, pairs=match.pairs.head(2), progress=False)
        Gallery(2 pairs of features, base and tuned, 12 images)
    """
    if len(saes) != 2 or set(saes) != set(models):
        raise SAEError(
            f"The SAEs are of {list(saes)}, the models {list(models)}.",
            expected="two checkpoints, the same names in both",
            remedy='Pass {"base": sae_a, "tuned": sae_b} and {"base": base, "tuned": tuned}.',
        )
    missing = [name for name in _PAIR_COLUMNS if name not in pairs]
    if missing:
        raise SAEError(
            f"pairs has no column '{missing[0]}'.",
            expected="rows of a match's pairs",
            remedy="Pass vitlens.saes.match(sae_a, sae_b).pairs, or some of its rows.",
        )
    same_architecture(models)
    sides = tuple(
        Side(name, sae, models[name], place_of(sae, hook_name, tokens, what=f"The SAE of '{name}'"))
        for name, sae in saes.items()
    )
    kinds = {side.name: side.place.tokens for side in sides}
    if len(set(kinds.values())) > 1:
        raise SAEError(
            f"The SAEs read different tokens: {kinds}.",
            expected="SAEs of the same tokens",
            remedy="Match SAEs that were trained on the same tokens, or pass tokens=.",
        )
    asked = parse_condition(condition)
    if not asked.shares_pixels:
        raise ConditionError(
            f"Under the condition '{asked.name}' each checkpoint sees pixels of its own.",
            expected="a condition under which both see the same",
            remedy="Make a gallery of each checkpoint, or attack one and show its pixels to both: "
            f"'pgd:on={next(iter(models))}'.",
        )
    if pairs.duplicated(list(_PAIR_COLUMNS)).any():
        raise SAEError(
            "pairs holds a pair twice.",
            expected="each pair once",
            remedy="Use pairs.drop_duplicates(['feature_a', 'feature_b']).",
        )
    features = [
        _checked(pairs[column].tolist(), side.sae, f"{column} of pairs")
        for column, side in zip(_PAIR_COLUMNS, sides, strict=True)
    ]
    numbers = pairs.drop(columns=list(_PAIR_COLUMNS)).select_dtypes("number")
    # As an array, since a frame without columns has rows there, and under pandas 2 no tuples.
    similarities = [
        dict(zip(map(str, numbers), map(float, row), strict=True)) for row in numbers.to_numpy(dtype=float)
    ]
    a_pass = GalleryPass(sides, asked, seed, batch_size, on_bad_image)
    a_pass.check(n_top_images, n_middle_images)
    return a_pass.gallery(
        dataset,
        features,
        similarities,
        n_top_images=n_top_images,
        n_middle_images=n_middle_images,
        class_names=class_names,
        said=f"{len(pairs)} pairs, named",
        progress=progress,
    )


def _checked(features: Sequence[int], sae: SAE, what: str) -> list[int]:
    """The features as plain numbers."""
    given = [int(feature) for feature in features]
    bad = [feature for feature in given if not 0 <= feature < sae.cfg.d_sae]
    if bad or not given:
        raise SAEError(
            f"{what} holds {bad[0]}." if bad else f"{what} is empty.",
            expected=f"at least one feature, from 0 to {sae.cfg.d_sae - 1}",
            remedy="Count from 0; a feature is a row of sae.W_dec.",
        )
    return given

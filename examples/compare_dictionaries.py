r"""Did fine-tuning change the dictionary? Sparse autoencoders of two checkpoints, between their nulls.

    python examples/compare_dictionaries.py --architecture deit_tiny_patch16_224 \
        --base deit_tiny.safetensors --tuned tuned/model.safetensors \
        --train photographs/train others/ --test photographs/val --output dictionaries/

It stores the activations of both checkpoints and of a model with random weights, trains SAEs of several seeds
on each, and writes tables (csv) and galleries (html). A call that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from compare_checkpoints import load, reinitialized
from torch.utils.data import ConcatDataset

import vitlens as vl


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, store, train, compare, and say where the tables are."""
    options = parse(arguments)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    base = load(options.base, options)
    models = {"base": base, "tuned": load(options.tuned, options), "unrelated": reinitialized(base)}
    checkpoints = {name: models[name] for name in ("base", "tuned")}
    train = ConcatDataset([images(folder, base, options.n_images) for folder in options.train])
    test = images(options.test, base, options.n_test_images)
    hook_name = options.hook or f"blocks.{3 * base.cfg.n_layers // 4}.hook_resid_post"

    store = vl.saes.ActivationStore.write(
        output / "store",
        models,
        train,
        hook_names=[hook_name],
        dtype="float16",
        num_workers=options.num_workers,
    )
    tokens = {name: store.tokens(hook_name, checkpoint=name) for name in models}
    saes = dictionaries(tokens, output / "saes", options)
    firsts = {name: saes[name][0] for name in checkpoints}

    held = vl.saes.ActivationStore.write(
        output / "held_out", models, test, hook_names=[hook_name], num_workers=options.num_workers
    )
    rows = {name: held.tokens(hook_name, checkpoint=name) for name in models}
    similarity = vl.saes.similarity(
        {name: saes[name] for name in checkpoints},
        unrelated=saes["unrelated"],
        activations=rows,
        method=options.method,
    )
    match = vl.saes.match(
        firsts["base"], firsts["tuned"], (rows["base"], rows["tuned"]), method=options.method
    )
    write(similarity.table(), output / "pairs_of_saes.csv")
    write(similarity.summary(), output / "similarity.csv", show=True)

    for name, sae in firsts.items():
        evaluation = vl.saes.evaluate(sae, models[name], test, conditions=options.conditions)
        write(evaluation.summary(), output / f"evaluation_{name}.csv", show=True)
    write(
        vl.saes.transfer(checkpoints, firsts, test, conditions=options.conditions),
        output / "transfer.csv",
        show=True,
    )
    codes = vl.saes.code_similarity(checkpoints, firsts, test, conditions=options.conditions, matches=match)
    write(mean_over_images(codes), output / "code_similarity.csv", show=True)

    some = vl.images.spread(test, 200)  # each feature is ablated by itself in each image
    # Hungarian leaves hardly a feature without a partner, however unlike: what is lost or new, mutual says.
    mutual = vl.saes.match(firsts["base"], firsts["tuned"], (rows["base"], rows["tuned"]), method="mutual")
    effects = vl.saes.feature_effects(
        checkpoints, firsts, mutual, some, conditions=options.conditions, output=output / "effects"
    )
    write(effects.table, output / "feature_effects.csv", show=True)
    joint = vl.saes.train_crosscoder(
        {name: tokens[name] for name in checkpoints},
        d_sae=firsts["base"].cfg.d_sae,
        k_per_token=options.k_per_token,
        n_tokens=options.n_tokens,
        output=output / "crosscoder",
    )
    print(f"\ncrosscoder\n{joint.summary().round(3).to_string()}")
    write(joint.table(), output / "crosscoder.csv")

    class_names = vl.images.folder(options.test, base).class_names
    shown = {"class_names": class_names, "seed": options.seed}
    for name, sae in firsts.items():
        vl.saes.gallery(sae, models[name], test, **shown).report(output / f"gallery_{name}.html")
    vl.saes.pair_gallery(
        firsts,
        checkpoints,
        test,
        pairs=match.pairs.sample(min(24, len(match.pairs)), random_state=0),
        **shown,
    ).report(output / "gallery_pairs.html")
    print(f"\ntables and galleries: {output}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", help="timm's name, for files that are bare state dicts")
    parser.add_argument("--base", required=True, help="the reference checkpoint")
    parser.add_argument("--tuned", required=True, help="the checkpoint to compare with it")
    parser.add_argument("--train", nargs="+", required=True, help="folders of images to train SAEs on")
    parser.add_argument("--test", required=True, help="a folder of images to evaluate them on")
    parser.add_argument("--output", default="dictionaries", help="folder for all results")
    parser.add_argument("--hook", help="where SAEs read (default: the block at three quarters)")
    parser.add_argument("--conditions", nargs="+", default=["clean", "gaussian_blur@3"])
    parser.add_argument("--n-images", type=int, help="use so many images of each training folder")
    parser.add_argument("--n-test-images", type=int, default=500)
    parser.add_argument("--n-seeds", type=int, default=3, help="SAEs for each model (default: 3)")
    parser.add_argument("--expansion", type=int, default=8, help="latents per input axis (default: 8)")
    parser.add_argument("--k-per-token", type=int, default=32)
    parser.add_argument("--n-tokens", type=int, help="tokens to train each SAE on")
    parser.add_argument("--method", default="hungarian", choices=["mutual", "hungarian"])
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def images(folder: str, model: vl.HookedViT, n: int | None) -> Any:
    """A folder's images, or `n` of them spread over it."""
    found = vl.images.folder(folder, model)
    return found if n is None else vl.images.spread(found, n)


def dictionaries(
    tokens: Mapping[str, Any], folder: Path, options: argparse.Namespace
) -> dict[str, list[Any]]:
    """SAEs of every model, no two of one seed, all at the scale that was fitted on the base."""
    saes: dict[str, list[Any]] = {name: [] for name in tokens}
    scale: float | None = None
    for place, (name, source) in enumerate(tokens.items()):
        for seed in range(place * options.n_seeds, (place + 1) * options.n_seeds):
            print(f"{name}, seed {seed}")
            sae = vl.saes.train(
                source,
                d_sae=options.expansion * source.d_in,
                k_per_token=options.k_per_token,
                n_tokens=options.n_tokens,
                activation_scale=scale,
                seed=seed,
                output=folder / f"{name}-{seed}",
            )
            scale = scale or sae.cfg.metadata.activation_scale
            saes[name].append(sae)
    return saes


def mean_over_images(codes: Any) -> pd.DataFrame:
    """Means of code similarity with 95 % Student's t intervals over images."""
    from scipy.stats import t

    n = codes.notnull().sum("image")
    mean, error = codes.mean("image"), codes.std("image", ddof=1) / n**0.5
    half = error * t.ppf(0.975, n["code_cosine_token"] - 1)
    table = mean.to_dataframe()
    for name in codes.data_vars:
        table[f"{name}_half_width"] = half[name].to_dataframe()[name]
    return table.reset_index()


def write(table: pd.DataFrame, path: Path, *, show: bool = False) -> None:
    """A table as csv, and on the terminal if wanted."""
    table.to_csv(path, index=False)
    if show:
        print(f"\n{path.name}\n{table.round(3).to_string(index=False)}")


if __name__ == "__main__":
    try:
        main()
    except vl.errors.VitlensError as error:
        sys.exit(f"{type(error).__name__}: {error}")

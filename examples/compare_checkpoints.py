r"""What changed inside? Compare checkpoints of one ViT and write a report.

Without arguments it makes its own checkpoints, from scikit-learn's scanned digits:

    python examples/compare_checkpoints.py

With arguments it takes anybody's:

    python examples/compare_checkpoints.py --architecture deit_tiny_patch16_224 \
        --base deit_tiny.safetensors --tuned blur=tuned/model.safetensors --data photographs/ \
        --conditions clean gaussian_blur@3 contrast@2
"""

# %% [markdown]
# # Comparing checkpoints
#
# The whole job: two checkpoints or more, the same images under the same conditions, sparse autoencoders of
# each, and one report of what differs. Without arguments it first trains a small ViT on scanned digits and
# two copies on corrupted ones, which takes minutes; `--quick` rehearses it in seconds, with models that are
# poor.

# %%
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from common import arguments, checkpoints, of_bare_state_dicts, reinitialized
from torch.utils.data import Subset

import vitlens as vl

KINDS = ("vanilla", "batch_topk")

# %% [markdown]
# ## From checkpoints to a report
#
# `vl.compare` measures all checkpoints on the same pixels. SAEs of the base with another seed, and of a
# model with random weights, say what a similarity of features is worth.


# %%
def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, compare, and say where the report is."""
    options = parse(arguments)
    output = Path(options.output)
    if options.base is None:
        import digits_models

        models = digits_models.checkpoints(output, quick=options.quick)
        unrelated = digits_models.untrained(seed=1)
        train, dataset = vl.images.digits("train"), vl.images.digits("test")
        conditions = options.conditions or digits_models.CONDITIONS
        class_names: Sequence[str] | None = [str(digit) for digit in range(10)]
        if options.quick:
            train, dataset = Subset(train, range(64)), Subset(dataset, range(40))
    else:
        models = checkpoints(options)
        unrelated = reinitialized(models["base"])
        dataset = vl.images.folder(options.data, models["base"])
        class_names = dataset.class_names
        if options.n_images:
            dataset = vl.images.spread(dataset, options.n_images)
        train = vl.images.spread(dataset, options.sae_images)
        conditions = options.conditions or ["clean", "gaussian_blur@3", "gaussian_noise@3", "contrast@2"]

    saes = None
    if not options.no_saes:
        saes = dictionaries({**models, "unrelated": unrelated}, train, output / "saes", options)
    comparison = vl.compare(
        models,
        dataset,
        conditions=conditions,
        saes=saes,
        unrelated_model=unrelated,
        class_names=class_names,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        seed=options.seed,
    )
    report = comparison.report(output / "report.html")
    summary = comparison.summary()
    summary.to_csv(output / "summary.csv", index=False)
    show(summary)
    if comparison.similarity is not None:
        show_similarity(comparison.similarity)
    print(f"\nsummary of every layer and head: {output / 'summary.csv'}\nreport: {report}")


# %% [markdown]
# ## Sparse autoencoders of every checkpoint
#
# Of both kinds. What was trained before is read back.


# %%
def dictionaries(
    models: Mapping[str, vl.HookedViT], dataset: Iterable[Any], folder: Path, options: argparse.Namespace
) -> dict[str, list[Any]]:
    """SAEs of both kinds for every checkpoint; two seeds of the base, so that reruns can be compared.

    No two share a seed: SAEs that start alike look alike. All are trained at the base's scale.
    """
    base = models["base"]
    hook_name = options.sae_hook or f"blocks.{2 * base.cfg.n_layers // 3}.hook_resid_post"
    base.check_hook_names([hook_name])
    wanted = [
        ("base", 0),
        ("base", 1),
        *((name, seed) for seed, name in enumerate(models, start=1) if seed > 1),
    ]
    saes: dict[str, list[Any]] = {name: [] for name in models}
    scale: float | None = None
    for name, seed in wanted:
        activations = None
        for kind in KINDS:
            path = folder / f"{name}-{kind}-{seed}"
            if not path.exists():
                if activations is None:
                    activations = vl.activations(models[name], dataset, hook_name)
                print(f"{name}: {kind} SAE, seed {seed}")
                sae = vl.saes.train(
                    activations,
                    kind=kind,
                    d_sae=options.sae_expansion * base.cfg.d_model,
                    k_per_token=options.k_per_token,
                    n_tokens=4096 if options.quick else options.sae_tokens,
                    batch_size=512 if options.quick else 4096,
                    activation_scale=scale,
                    seed=seed,
                    metadata={"hook_name": hook_name, "tokens": "patch", "checkpoint": name},
                )
                vl.saes.save(sae, path)
            saes[name].append(vl.saes.load(path))
            scale = scale or saes[name][-1].cfg.metadata.activation_scale
    return saes


# %% [markdown]
# ## What is said on the terminal
#
# Everything is in the summary, a row for each metric, condition, layer and head; here are three of its
# metrics. An interval is that of one difference by itself; a star wants more, a p that stays below 0.05 when
# it is adjusted for all tests of its family. So an interval can leave out 0 without a star.


# %%
def show(summary: pd.DataFrame) -> None:
    """The primary metrics as tables; everything else is in the file and the report."""
    for metric in ("top1_accuracy", "correct_probability", "first_correct_layer"):
        rows = summary[summary["metric"] == metric]
        if rows.empty:
            continue
        print(f"\n{metric} of {rows['n'].max()} images; difference, 95 % interval; * changed, = equivalent")
        mark = rows["verdict"].map({"changed": "*", "equivalent": "="}).fillna(" ")
        cells = [
            f"{row.value:.3f} {row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}] {sign}"
            for row, sign in zip(rows.itertuples(), mark, strict=True)
        ]
        reference = rows.drop_duplicates("condition").set_index("condition")["value_reference"]
        table = rows.assign(cell=cells).pivot(index="condition", columns="checkpoint", values="cell")
        table = table.loc[reference.index, rows["checkpoint"].unique()]
        table.insert(0, rows["reference"].iloc[0], reference.map("{:.3f}".format))
        print(table.rename_axis(columns=None).to_string())


# %% [markdown]
# How alike the features are stands between two yardsticks: SAEs of a model with random weights (0) and two
# SAEs of the base with different seeds (1). An interval wants at least three seeds of every checkpoint, as
# `match_features.py` trains them; where it is missing, nothing is decided.


# %%
def show_similarity(similarity: pd.DataFrame) -> None:
    """How alike the checkpoints' features are, a line for each kind of SAE."""
    print("\nfeatures: share of the way from a model with random weights (0) to a rerun of the base (1)")
    columns = ["kind", "checkpoint", "pair", "seed_to_seed", "unrelated", "similarity_share", "verdict"]
    print(similarity[columns].round(3).to_string(index=False))


# %% [markdown]
# ## The command line


# %%
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what does not go together is refused before anything is loaded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    of_bare_state_dicts(parser)
    parser.add_argument("--base", help="the reference: a file that vitlens.save wrote, or a state dict")
    parser.add_argument(
        "--tuned",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a checkpoint to compare; repeatable",
    )
    parser.add_argument("--data", help="images: a folder with a folder for each class")
    parser.add_argument("--conditions", nargs="+", help="such as clean gaussian_blur@3 contrast@2")
    parser.add_argument("--output", default="demo", help="folder for the report and all else (default: demo)")
    parser.add_argument("--n-images", type=int, help="use so many images, spread over the folder")
    parser.add_argument("--no-saes", action="store_true", help="leave sparse autoencoders out")
    parser.add_argument("--sae-hook", help="where they are trained (default: the block at two thirds)")
    parser.add_argument(
        "--sae-images", type=int, default=300, help="images they are trained on (default: 300)"
    )
    parser.add_argument("--sae-tokens", type=int, default=400_000, help="tokens a training (default: 400000)")
    parser.add_argument("--sae-expansion", type=int, default=4, help="latents per input axis (default: 4)")
    parser.add_argument("--k-per-token", type=int, default=8, help="active latents of BatchTopK (default: 8)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal: few steps, few images, poor models"
    )
    options = parser.parse_args(arguments)
    if options.base and not (options.tuned and options.data):
        parser.error("--base wants --tuned and --data besides")
    if not options.base and (options.tuned or options.data or options.architecture):
        parser.error("--architecture, --tuned and --data want --base besides")
    return options


# %%
if __name__ == "__main__":
    try:
        main(arguments())
    except vl.errors.VitlensError as error:
        sys.exit(f"{type(error).__name__}: {error}")

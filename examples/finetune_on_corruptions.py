r"""Fine-tune a ViT on a corruption and on an attack, beside a clean control, and see what each was good for.

Without arguments, on scanned digits, with small models that it trains first, in seconds:

    python examples/finetune_on_corruptions.py

With arguments, on anybody's:

    python examples/finetune_on_corruptions.py --architecture deit_tiny_patch16_224 \
        --base deit_tiny.safetensors --train train/ --data held_out/ \
        --conditions gaussian_noise@1-4 --steps 300 --learning-rate 5e-5 --layer-decay 0.75 --output tuned/

A single fine-tuning needs no script: `vitlens finetune` does one. A call that was killed goes on where it
stopped.
"""

# %% [markdown]
# # Fine-tuning on corruptions
#
# A fine-tuned model differs from its base for two reasons: what it was trained on, and that it was trained
# further. The second is measured by a *control*: the same base, images, order and number of steps, and every
# image clean. Beside it, two recipes: one sees half of its images under a corruption, the other half of them
# under an attack that is made against the model as it is at that step.

# %%
from common import checkpoint, class_names, flags, images, read, show

import vitlens as vl

parser = flags("finetune", __doc__, checkpoints="one")
add = parser.add_argument
add("--train", metavar="FOLDER", help="images to train on; --data are those held out")
add(
    "--conditions",
    nargs="+",
    default=["gaussian_noise@2-5"],
    help="of the first recipe (default: %(default)s)",
)
add("--attack", default="pgd:eps=8/255,alpha=4/255,steps=2", help="of the second (default: %(default)s)")
add("--unseen", nargs="+", default=["contrast@2"], help="to measure under besides (default: %(default)s)")
add("--steps", type=int, default=100, help="of each (default: %(default)s)")
add("--batch-size", type=int, default=32)
add("--learning-rate", type=float, default=1e-3)
add("--layer-decay", type=float, help="factor from each block to the one below (default: none)")
add("--num-workers", type=int, default=0)
add("--seed", type=int, default=0)
options = read(parser)
if options.data and not options.train:
    parser.error("--data wants --train besides: images that are trained on say nothing of others")
base = checkpoint(options)
held_out = images(options, base)
train = vl.images.folder(options.train, base) if options.train else vl.images.digits("train")

# %% [markdown]
# ## Three runs that differ in one thing
#
# An entry of `conditions` may be a corruption, a range of severities, a group, a band of frequencies or an
# attack. Which images a step has, and how each is corrupted, depends on the seed, the step and the image
# alone.

# %%
recipes = {"control": [], "corruption": options.conditions, "attack": [options.attack]}
models = {}
for name, conditions in recipes.items():
    config = vl.training.FinetuneConfig(
        conditions=conditions,
        p_clean=0.5 if conditions else 1,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.steps // 10,
        layer_decay=options.layer_decay,
        seed=options.seed,
    )
    result = vl.training.finetune(base, train, config, options.folder / name, num_workers=options.num_workers)
    models[name] = result.model
    print(f"{name}: loss {result.log['loss'].tail(10).mean():.3f} at the end; {result.path}")

# %% [markdown]
# ## What each was good for
#
# On images that none was trained on: clean, under what each recipe saw, and under what none did. The attack
# is made on each model by itself, so that there each sees the pixels that are worst for it.

# %%
strongest = [each.name for each in vl.images.parse_conditions(options.conditions)][-1]
conditions = ["clean", strongest, options.attack, *options.unseen]
comparison = vl.compare(
    {**models, "base": base},
    held_out,
    analyses=[vl.Prediction()],
    conditions=conditions,
    class_names=class_names(held_out),
    n_examples=0,
)
show(comparison.figures()["accuracy"], "accuracy", options)
summary = comparison.summary()
summary.to_csv(options.folder / "summary.csv", index=False)
rows = summary[summary["metric"] == "top1_accuracy"]
columns = [
    "condition",
    "checkpoint",
    "value_reference",
    "value",
    "difference",
    "ci_low",
    "ci_high",
    "verdict",
]
print(rows[columns].round(3).to_string(index=False))

# %% [markdown]
# ## What was found
#
# Differences are from the control. With one run of each recipe the intervals are over images: another seed
# of training may move a difference by more than they tell.

# %%
for name in ("corruption", "attack"):
    said = [
        f"{100 * row.difference:+.1f} points under {row.condition} ({row.verdict})"
        for row in rows[rows["checkpoint"] == name].itertuples()
    ]
    print(f"{name}: {', '.join(said)}.")
further = rows[(rows["checkpoint"] == "base") & (rows["condition"] == strongest)].iloc[0]
print(
    f"Further training on clean images alone moved accuracy under {strongest} by "
    f"{-100 * further['difference']:+.1f} points: without the control, that would pass for a recipe's doing."
)

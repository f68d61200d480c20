"""Calls with bad input: public name, call, the error's class, and words of what was given, expected and to do.

A plain program: in the tests' own process the type checker would catch the wrong types first.
"""

from __future__ import annotations

# ruff: noqa: E501  # one call a line is a table
import dataclasses
import io
import json
import shutil
import sys
import tempfile
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
import xarray as xr

import vitlens as vl
from vitlens import errors, saes, training
from vitlens import functional as F
from vitlens import images as im
from vitlens.cli import main
from vitlens.comparison import across_seeds, summarize, to_latex, transfer
from vitlens.report import figures as draw
from vitlens.report import fourier_heat_map_figure
from vitlens.report import write as write_report
from vitlens.testing import check_family, randomize

warnings.simplefilter("ignore")
torch.set_num_threads(1)
here = Path(tempfile.mkdtemp())
SHAPE = {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}


def vit(seed=0, **changes):
    return randomize(timm.models.VisionTransformer(**{**SHAPE, **changes}).eval(), seed=seed)


def item(**changes):
    return {"pixels": torch.full((3, 32, 32), 0.5), "label": 1, "image_id": "a", **changes}


model, other, wide = vl.HookedViT(vit()), vl.HookedViT(vit(1)), vl.HookedViT(vit(embed_dim=16))
headless = vl.HookedViT(vit(num_classes=0))
data = [item(image_id=f"image {i}", label=i % 3) for i in range(3)]
pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
labels = torch.tensor([0, 1])
HOOK = "blocks.1.hook_resid_post"
x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
tiny = {"k_per_token": 2, "batch_size": 64, "n_tokens": 640, "progress": False}
sae = saes.train(x, d_sae=12, **tiny)
sae.cfg.metadata.hook_name, sae.cfg.metadata.tokens = HOOK, "patch"
narrow = saes.train(x[:, :4].contiguous(), d_sae=12, **tiny)
narrow.cfg.metadata.hook_name, narrow.cfg.metadata.tokens = HOOK, "patch"
rows = xr.Dataset(
    {"rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]])},
    coords={"checkpoint": ["base", "tuned"], "condition": ["clean"], "image": ["a", "b"]},
)
summary = summarize(rows, n_resamples=20)
made = vl.Comparison(rows, "base", 10)
good = vl.save(model, here / "good.safetensors")
saes.save(sae, here / "sae")
quiet = {"progress": False}


def file(name, content):
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def command(*words):
    """A command whose refusal is its message on standard error."""
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:
            status = ended.code
    if status in (1, 2):
        raise RefusedError(said.getvalue())
    return status


class RefusedError(Exception):
    """What a command said as it refused."""


whole = good.read_bytes()
store = saes.ActivationStore.write(here / "store", model, data, hook_names=[HOOK], **quiet)
config = training.FinetuneConfig(conditions=["contrast@2"], steps=1, batch_size=2)

CASES = [
    # models and their files
    ("load", lambda: vl.load(here / "none.safetensors"), "CheckpointError", ('There is no file', 'a .safetensors, .pth or .pt', 'Check the path.')),
    ("load", lambda: vl.load(here), "CheckpointError", ('is a folder.', 'a .safetensors, .pth or .pt', 'Name the file in it, such as')),
    ("load", lambda: vl.load(model.model), "CheckpointError", ('path is a VisionTransformer.', 'a file; a live', 'Wrap it: vitlens.HookedViT')),
    ("run", lambda: vl.run({"base": model.model}, data, [vl.Prediction()], **quiet), "AnalysisError", ("'base' is a VisionTransformer", 'a name, and a HookedViT', 'Wrap a module of timm')),
    ("compare", lambda: vl.compare({"base": model.model, "tuned": model}, data, **quiet), "AnalysisError", ("'base' is a VisionTransformer", 'a name, and a HookedViT', 'Wrap a module of timm')),
    ("compare", lambda: vl.compare({"base": "a.pth", "tuned": "b.pth"}, data, **quiet), "AnalysisError", ("'base' is a str", 'a name, and a HookedViT', 'Load the file: vitlens.load')),
    ("load", lambda: vl.load(3), "CheckpointError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("load", lambda: vl.load(file("cut.safetensors", whole[:300])), "CheckpointError", ('cannot be read (Safetensor', 'a whole safetensors file, or', 'Copy it again; a .pth with')),
    ("load", lambda: vl.load(file("zeros.safetensors", bytes(999))), "CheckpointError", ('cannot be read (Safetensor', 'a whole safetensors file, or', 'Copy it again; a .pth with')),
    ("load", lambda: vl.load(file("empty.safetensors", b"")), "CheckpointError", ('cannot be read (Safetensor', 'a whole safetensors file, or', 'Copy it again; a .pth with')),
    ("load", lambda: vl.load(file("zeros.pth", bytes(999)), "vit_tiny_patch16_224"), "CheckpointError", ('cannot be read: it is no checkpoint.', 'a safetensors file, or a .pth', 'Check the path; a safetensors')),
    ("load", lambda: vl.load(file("text.pt", b"hello"), "vit_tiny_patch16_224"), "CheckpointError", ('cannot be read: it is no checkpoint.', 'a safetensors file, or a .pth', 'Check the path; a safetensors')),
    ("load", lambda: vl.load(good, "deit_tiny_patch"), "ArchitectureError", ("timm knows no architecture 'deit_tiny_patch'.", 'a name that', 'Correct the name, or wrap the')),
    ("load", lambda: vl.load(good, device="gpu"), "CheckpointError", ("device is 'gpu'.", '"cpu", "cuda", "cuda:1" or', 'Leave it out for the CPU.')),
    ("load", lambda: vl.load(good, 3), "ArchitectureError", ('The architecture is 3.', "timm's name for it, as text", 'Write')),
    ("load", lambda: vl.load(good, "vit_tiny_patch16_224", no_such=1), "ArchitectureError", ("timm cannot build 'vit_tiny_patch16_224' with no_such", 'arguments that', "See timm's page of the")),
    ("save", lambda: vl.save("model", here / "a"), "FamilyError", ('The model is a str.', 'a module of torch, such as', 'Load a file with')),
    ("save", lambda: vl.save(model, 3), "CheckpointError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("save", lambda: vl.save(model, here), "CheckpointError", ('is a folder.', 'the name of a file', 'Add one, such as')),
    ("save", lambda: vl.save(model, here / "a", provenance={"a": model}), "CheckpointError", ('The provenance cannot be written (Object of type HookedViT', 'numbers, texts, truth values,', 'Say what it is in words.')),
    ("weights_sha256", lambda: vl.weights_sha256("model"), "FamilyError", ('The model is a str.', 'a HookedViT or a module of', 'Load a file with vitlens.load')),
    ("to_huggingface_state_dict", lambda: vl.to_huggingface_state_dict(model, "x/y"), "ArchitectureError", ('This str does not say its class.', 'a live Hugging Face module, a', 'Pass the class:')),
    ("HookedViT", lambda: vl.HookedViT(torch.nn.Linear(2, 2)), "FamilyError", ('is of no family that vitlens can open.', 'a timm module of class Beit,', 'Wrap such a module, or write')),
    ("HookedViT", lambda: vl.HookedViT(timm.create_model("resnet18")), "FamilyError", ('timm.models.resnet.ResNet is of no family that vitlens can', 'a timm module of class Beit,', 'Wrap such a module, or write')),
    ("HookedViT", lambda: vl.HookedViT("deit"), "FamilyError", ('The model is a str.', 'a module of torch, such as', 'Load a file with')),
    ("HookedViT", lambda: vl.HookedViT.from_timm("deit_tinny"), "ArchitectureError", ("timm knows no architecture 'deit_tinny'.", 'a name that', 'Correct the name, or wrap the')),
    ("HookedViT", lambda: vl.HookedViT.from_timm(3), "ArchitectureError", ('The architecture is 3.', "timm's name for it, as text", 'Write')),
    ("HookedViT", lambda: vl.HookedViT.from_huggingface(here / "nowhere"), "CheckpointError", ('There is no folder', 'a folder that save_pretrained', 'Check the path.')),
    ("HookedViT", lambda: vl.HookedViT.from_huggingface(str(here)), "CheckpointError", ('cannot be loaded (OS', 'a folder that save_pretrained', 'Check the name, the revision,')),
    ("HookedViT", lambda: vl.HookedViT.from_huggingface(3), "CheckpointError", ('source is 3.', 'a path', 'Name a file or a folder, as')),
    ("HookedViT", lambda: model("image"), "PixelError", ('The images are a str.', 'a tensor of floating-point', 'Normalize pixels in [0, 1]')),
    ("HookedViT", lambda: model(torch.rand(2, 3, 16, 16)), "PixelError", ('The images have shape (2, 3, 16, 16).', '[batch, 3, 32, 32]', 'Add the batch axis, or resize')),
    ("HookedViT", lambda: model(torch.rand(2, 1, 32, 32)), "PixelError", ('The images have shape (2, 1, 32, 32).', '[batch, 3, 32, 32]', 'Add the batch axis, or resize')),
    ("HookedViT", lambda: model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)), "PixelError", ('The images are of type torch.uint8.', 'a tensor of floating-point', 'Normalize pixels in [0, 1]')),
    ("HookedViT", lambda: model.run_with_cache(pixels, names_filter="blocks.0.hook_resid_pst"), "HookError", ("'blocks.0.hook_resid_pst' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("HookedViT", lambda: model.run_with_cache(pixels, names_filter=[3]), "HookError", ('A hook name is 3.', 'a text', 'See model.hook_names.')),
    ("HookedViT", lambda: model.run_with_cache(pixels, stop_at_layer=9), "HookError", ('stop_at_layer is 9.', '-2 to 2', '0 stands before the first')),
    ("HookedViT", lambda: model.run_with_hooks(pixels, fwd_hooks=[("no", abs)]), "HookError", ("'no' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("HookedViT", lambda: model.readout(torch.rand(2, 5, 9)), "ShapeError", ('resid has shape (2, 5, 9).', '[batch, pos, d_model = 8]', 'Give the residual stream with')),
    ("HookedViT", lambda: model.readout("resid"), "ShapeError", ('resid has shape str.', '[batch, pos, d_model = 8]', 'Give the residual stream with')),
    ("HookedViT", lambda: model.stacked("W_X"), "HookError", ("The blocks have no weight 'W_X'.", 'one of W_Q, W_K, W_V, W_O,', 'See model.blocks[0].attn and')),
    ("HookedViT", lambda: model.normalize("pixels"), "PixelError", ('The pixels are a str.', 'a tensor [..., 3, height,', 'Divide bytes by 255')),
    ("ActivationCache", lambda: model.run_with_cache(pixels, names_filter=HOOK)[1]["blocks.0.hook_x"], "HookError", ("'blocks.0.hook_x' is not in this cache of 1 activations.", 'a cached hook name (nearest:', 'Name the hook in names_filter')),
    ("ViTConfig", lambda: model.cfg.positions("registers"), "ArchitectureError", ("This model has no 'registers' token.", 'one of cls, patch, all', 'Choose a kind of token that')),
    ("register_family", lambda: vl.register_family("mine"), "FamilyError", ('The family is a str.', 'an instance of a class that', 'Write such a class and pass')),
    ("models.build", lambda: vl.models.build({"kind": "timm"}), "ArchitectureError", ("{'kind': 'timm'} is no description of an architecture.", 'kind, name and kwargs', 'Pass architecture= to')),
    ("models.build", lambda: vl.models.build({"kind": "timm", "name": "hf-hub:a/b", "kwargs": {}}), "ArchitectureError", ("The architecture is described as timm 'hf-hub:a/b'.", 'a timm name, or a class among', 'Pass architecture= to')),
    ("models.build", lambda: vl.models.build({"kind": "class", "name": "VisionTransformer", "kwargs": {"depth": "a"}}), "ArchitectureError", ("The described architecture 'VisionTransformer' cannot be", 'arguments that timm takes', 'Pass architecture= to')),
    ("models.build_timm", lambda: vl.models.build_timm("vitt"), "ArchitectureError", ("timm knows no architecture 'vitt'.", 'a name that', 'Correct the name, or wrap the')),
    ("models.describe", lambda: vl.models.describe(torch.nn.Linear(1, 1)), "ArchitectureError", ('It cannot be told how this Linear was built.', 'a module from', 'Pass architecture= and its')),
    ("models.find_family", lambda: vl.models.find_family(torch.nn.Linear(1, 1)), "FamilyError", ('is of no family that vitlens can open.', 'a timm module of class Beit,', 'Wrap such a module, or write')),
    ("testing.check_family", lambda: check_family(torch.nn.Linear(1, 1)), "FamilyError", ('is of no family that vitlens can open.', 'a timm module of class Beit,', 'Wrap such a module, or write')),
    ("testing.randomize", lambda: randomize("model"), "FamilyError", ('The model is a str.', 'a module of torch', 'Make one with')),
    # running
    ("run", lambda: vl.run("model", data, [vl.Prediction()], **quiet), "AnalysisError", ('The model is a str.', 'a HookedViT, or a mapping of', 'Wrap a module of timm:')),
    ("run", lambda: vl.run({}, data, [vl.Prediction()], **quiet), "AnalysisError", ('There is no checkpoint.', 'one or more', 'Pass {"base": model, "tuned":')),
    ("run", lambda: vl.run({"a": vit()}, data, [vl.Prediction()], **quiet), "AnalysisError", ("The checkpoint 'a' is a VisionTransformer.", 'a name, and a HookedViT', 'Wrap a module of timm:')),
    ("run", lambda: vl.run({"a": model, "b": wide}, data, [vl.Prediction()], **quiet), "ArchitectureError", ("'a' and 'b' are of different architectures (d_model 8 and", 'checkpoints of one', 'Compare checkpoints that were')),
    ("run", lambda: vl.run(model, 3, [vl.Prediction()], **quiet), "DatasetError", ('The data set is a int.', 'a torch Dataset, a sequence', 'See vitlens.images.digits and')),
    ("run", lambda: vl.run(model, [], [vl.Prediction()], **quiet), "DatasetError", ('The data set has no images.', 'at least one item', 'Check how it was made; a')),
    ("run", lambda: vl.run(model, data, vl.Prediction(), **quiet), "AnalysisError", ('analyses is a Prediction.', 'a list of analyses', 'Write [vitlens.Prediction()],')),
    ("run", lambda: vl.run(model, data, ["Prediction"], **quiet), "AnalysisError", ('str is no analysis.', 'the methods of one protocol:', 'See vitlens.Analysis for what')),
    ("run", lambda: vl.run(model, data, [vl.Prediction], **quiet), "AnalysisError", ('Prediction is a class.', 'an analysis', 'Write Prediction().')),
    ("run", lambda: vl.run(headless, data, [vl.Prediction()], **quiet), "AnalysisError", ('Prediction needs classes; this model has no classifier', 'a model with a classification', "Load the classifier's weights")),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], conditions="clean", **quiet), "ConditionError", ("The conditions are one string, 'clean'.", 'a list of conditions', "Write ['clean'].")),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], conditions=["fogg@3"], **quiet), "ConditionError", ("There is no corruption 'fogg'.", 'a key of vitlens.CORRUPTIONS,', 'Correct the name, register it')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], conditions=3, **quiet), "ConditionError", ('conditions is 3.', 'a list of conditions', 'Write ["clean",')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], batch_size=0, **quiet), "AnalysisError", ('batch_size is 0.', 'a whole number of 1 or more', 'Leave it out for 32.')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], batch_size="8", **quiet), "AnalysisError", ("batch_size is '8'.", 'a whole number of 1 or more', 'Leave it out for 32.')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], seed=-1, **quiet), "AnalysisError", ('seed is -1.', 'a whole number of 0 or more', 'Leave it out for 0.')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], seed="x", **quiet), "AnalysisError", ("seed is 'x'.", 'a whole number of 0 or more', 'Leave it out for 0.')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], precision="int8", **quiet), "AnalysisError", ("The precision is 'int8'.", "None (the model's own),", "Choose 'bfloat16' to run the")),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], output=3, **quiet), "AnalysisError", ('output is 3.', 'a path', 'Name a file or a folder, as')),
    ("run", lambda: vl.run(model, data, [vl.Prediction()], output=good, **quiet), "AnalysisError", ('is a file.', 'a folder, new or that of this', 'Name another output.')),
    ("run", lambda: vl.run(model, [item(label=9)], [vl.Prediction()], **quiet), "LabelError", ("The label of image 'a' is 9.", 'a whole number from 0 to 2', 'Give the index of the class,')),
    ("run", lambda: vl.run(model, [item(label="cat")], [vl.Prediction()], **quiet), "LabelError", ("The label of image 'a' is 'cat'.", 'a whole number from 0 to 2', 'Give the index of the class,')),
    ("run", lambda: vl.run(model, [item(), item()], [vl.Prediction()], **quiet), "DatasetError", ("The image id 'a' is found twice.", 'ids that are unique in the', 'Name each image apart: two of')),
    ("run", lambda: vl.run(model, [item(image_id=3)], [vl.Prediction()], **quiet), "DatasetError", ('The image id of item 0 of the data set is 3.', 'a string', 'Give a name that stays with')),
    ("run", lambda: vl.run(model, [(pixels[0], 1)], [vl.Prediction()], **quiet), "DatasetError", ('Item 0 of the data set is a tuple.', 'a mapping with the keys', 'Wrap the data set in one that')),
    ("run", lambda: vl.run(model, [item(pixels=torch.full((3, 32, 32), 2.0))], [vl.Prediction()], **quiet), "PixelError", ("The pixels of image 'a' go from 2 to 2.", 'float32 in [0, 1], [3 height', 'Undo any normalization and')),
    ("run", lambda: vl.run(model, [item(pixels=torch.full((3, 32, 32), torch.nan))], [vl.Prediction()], **quiet), "PixelError", ("The pixels of image 'a' hold NaN.", 'float32 in [0, 1], [3 height', 'Find out where it comes from:')),
    ("run", lambda: vl.run(model, [item(pixels=np.zeros((3, 32, 32)))], [vl.Prediction()], **quiet), "PixelError", ("The pixels of image 'a' are a ndarray, not a tensor.", 'float32 in [0, 1], [3 height', 'Give a torch tensor [3 height')),
    ("run", lambda: vl.run(model, [item(pixels=torch.zeros(3, 9, 9))], [vl.Prediction()], **quiet), "PixelError", ("Image 'a' has 9 × 9 pixels (height × width).", "32 × 32, the model's size or", 'Resize and crop every image')),
    ("activations", lambda: vl.activations(model, data, "blocks.7.hook_z", **quiet), "HookError", ("'blocks.7.hook_z' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("activations", lambda: vl.activations(vit(), data, HOOK, **quiet), "AnalysisError", ('The model is a VisionTransformer.', 'a HookedViT', 'Wrap a module of timm:')),
    ("activations", lambda: vl.activations(model, data, HOOK, tokens="register", **quiet), "ArchitectureError", ("This model has no 'register' token.", 'one of cls, patch, all', 'Choose a kind of token that')),
    ("activations", lambda: vl.activations(model, data, 3, **quiet), "HookError", ('A hook name is 3.', 'a text', 'See model.hook_names.')),
    ("table", lambda: vl.table({"a": 3}), "AnalysisError", ("variables is {'a': 3}.", 'name -> (dims after image,', 'Write {"score": ((),')),
    ("table", lambda: vl.table(3), "AnalysisError", ("variables is 3.", 'name -> (dims after image,', 'Write {"score": ((),')),
    ("running.same_architecture", lambda: vl.running.same_architecture({"a": model, "b": wide}), "ArchitectureError", ("'a' and 'b' are of different architectures (d_model 8 and", 'checkpoints of one', 'Compare checkpoints that were')),
    # analyses
    ("CKA", lambda: vl.CKA(n_groups="3"), "AnalysisError", ("n_groups is '3'.", '1 for no standard error, or', 'Pass n_groups=20, say.')),
    ("Ablation", lambda: vl.Ablation(kind="zeros"), "AnalysisError", ("The kind of Ablation is 'zeros', with 0 banks.", "'zero' without banks, or", 'Use Ablation(),')),
    ("Ablation", lambda: vl.Ablation(components=("heads",)), "AnalysisError", ("The components of Ablation are ('heads',).", 'a tuple of some of head,', 'Leave it out for the usual')),
    ("ArtifactTokens", lambda: vl.ArtifactTokens(norm_ratio="4"), "AnalysisError", ("norm_ratio is '4'.", 'a number above 0', 'Leave it out for the default.')),
    ("AttentionShare", lambda: vl.run(model, data, [vl.AttentionShare(resid_layer=99)], **quiet), "AnalysisError", ('resid_layer is 99.', '-3 to 2 for this model', '0 is what enters block 0; -1')),
    ("AttentionMap", lambda: vl.run(model, data, [vl.AttentionMap(("nobody",))], **quiet), "AnalysisError", ("An analysis names the image 'nobody', which the data set", 'ids of its 3 images (nearest:', 'See image_id of the data')),
    ("AttentionMap", lambda: vl.run(model, data, [vl.AttentionMap("image 0")], **quiet), "AnalysisError", ("image_ids is 'image 0'.", 'a tuple of image ids, or None', "Write image_ids=('image 0',).")),
    ("AttentionRollout", lambda: vl.AttentionRollout(head_fusion="sum"), "AnalysisError", ("head_fusion is 'sum' and discard_ratio 0.0.", 'a fusion of mean, max, min,', "The paper's are 'mean' and 0.")),
    ("AttentionRollout", lambda: vl.AttentionRollout(discard_ratio=2.0), "AnalysisError", ("head_fusion is 'mean' and discard_ratio 2.0.", 'a fusion of mean, max, min,', "The paper's are 'mean' and 0.")),
    ("AttributionPatching", lambda: vl.AttributionPatching(components=("no",)), "AnalysisError", ("The components of AttributionPatching are ('no',).", 'a tuple of some of resid,', 'Leave it out for the usual')),
    ("AttributionPatching", lambda: vl.run(model, data, [vl.AttributionPatching()], **quiet), "AnalysisError", ('AttributionPatching looks at two checkpoints, and there is', 'two or more', 'Pass {"base": model, "tuned":')),
    ("GradientRollout", lambda: vl.run(model, data, [vl.GradientRollout("image 0")], **quiet), "AnalysisError", ("image_ids is 'image 0'.", 'a tuple of image ids, or None', "Write image_ids=('image 0',).")),
    ("GradientTimesActivation", lambda: vl.run(model, data, [vl.GradientTimesActivation("no")], **quiet), "AnalysisError", ("GradientTimesActivation needs 'no', which this model has", 'a hook of this model', 'See model.hook_names; leave')),
    ("IntegratedGradients", lambda: vl.IntegratedGradients(n_steps=0), "AnalysisError", ('n_steps is 0, images_per_pass 16, baseline 0.5.', '1 or more steps and images,', '32 steps from a baseline of')),
    ("IntegratedGradients", lambda: vl.IntegratedGradients(baseline=3.0), "AnalysisError", ('n_steps is 32, images_per_pass 16, baseline 3.0.', '1 or more steps and images,', '32 steps from a baseline of')),
    ("LinearProbe", lambda: vl.LinearProbe.fit(model, data, tokens="nothing", **quiet), "AnalysisError", ("LinearProbe is asked for tokens 'nothing', which this model", 'one of pooled, all, cls, patch', 'Choose tokens that all the')),
    ("LogitLens", lambda: vl.run(headless, data, [vl.LogitLens()], **quiet), "AnalysisError", ('LogitLens needs classes; this model has no classifier', 'a model with a classification', "Load the classifier's weights")),
    ("LogitAttribution", lambda: vl.run(headless, data, [vl.LogitAttribution()], **quiet), "AnalysisError", ('LogitAttribution needs classes; this model has no', 'a model with a classification', "Load the classifier's weights")),
    ("TokenLens", lambda: vl.run(model, data, [vl.TokenLens("image 0")], **quiet), "AnalysisError", ("image_ids is 'image 0'.", 'a tuple of image ids, or None', "Write image_ids=('image 0',).")),
    ("Transplant", lambda: vl.Transplant(components=("x",)), "AnalysisError", ("The components of Transplant are ('x',).", 'a tuple of some of resid,', 'Leave it out for the usual')),
    ("TunedLens", lambda: vl.run(model, data, [vl.TunedLens()], **quiet), "AnalysisError", ('TunedLens has no translators for a model with these weights', 'a model with exactly the', 'Train one with')),
    ("transplant", lambda: vl.transplant(model, wide, pixels, HOOK), "ArchitectureError", ("'donor' and 'recipient' are of different architectures", 'checkpoints of one', 'Compare checkpoints that were')),
    ("transplant", lambda: vl.transplant(model, other, pixels, "no"), "HookError", ("'no' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("transplant", lambda: vl.transplant(model, other, "pixels", HOOK), "PixelError", ('The pixels of the transplant are a str, not a tensor.', 'floats in [0, 1], [batch 3', 'Give a torch tensor [batch 3')),
    ("interpolate", lambda: vl.interpolate(model, wide, data), "ArchitectureError", ('The models differ: of their parameters, 31 of another shape', 'two checkpoints of one', 'Load both with the same')),
    ("interpolate", lambda: vl.interpolate(model, other, data, alphas="ab"), "AnalysisError", ("alphas is 'ab'.", 'a list of numbers', 'Pass alphas=(0, 0.25, 0.5,')),
    ("weight_distance", lambda: vl.weight_distance(model, wide), "ArchitectureError", ('The models differ: of their parameters, 31 of another shape', 'two checkpoints of one', 'Load both with the same')),
    ("weight_distance", lambda: vl.weight_distance(vit(), model), "AnalysisError", ("The checkpoint 'reference' is a VisionTransformer.", 'a name, and a HookedViT', 'Wrap a module of timm:')),
    ("fourier_heat_map", lambda: vl.fourier_heat_map(model, data, l2_norm_pixel=-1), "ConditionError", ('l2_norm_pixel is -1.0.', 'a finite value of 0 or more', 'It is the rms times the root')),
    # images
    ("images.digits", lambda: im.digits("training"), "DatasetError", ("The split is 'training'.", "'train' or 'test'", "Hold images back from 'train'")),
    ("images.textured_shapes", lambda: im.textured_shapes("train", n=-1), "DatasetError", ('n is -1.', '1 or more', 'Give the number of images, a')),
    ("images.textured_shapes", lambda: im.textured_shapes("train", label="color"), "DatasetError", ("The label is 'color'.", "'class', 'shape' or 'texture'", 'Other factors stand in the')),
    ("images.folder", lambda: im.folder(here / "no folder", model), "DatasetError", ('folder does not exist.', 'a folder with one folder of', 'Check the path; images lie at')),
    ("images.folder", lambda: im.folder(3, model), "DatasetError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("images.batches", lambda: list(im.batches(data, batch_size=0)), "DatasetError", ('batch_size is 0 and num_workers is 0.', 'a batch_size of 1 or more and', 'Give batch_size=32 and')),
    ("images.collate", lambda: im.collate([]), "DatasetError", ('The batch has no item.', 'one or more', 'Leave out batches without')),
    ("images.check", lambda: im.check([item(), item()]), "DatasetError", ("The image id 'a' is found twice.", 'ids that are unique in the', 'Name each image apart: two of')),
    ("images.parse_condition", lambda: im.parse_condition("fog@9"), "ConditionError", ("The condition 'fog@9' has the severity '9'.", '"fog@1" (mildest) to "fog@5",', 'Write "fog@3", say.')),
    ("images.parse_condition", lambda: im.parse_condition("pgd:epss=3"), "ConditionError", ("The condition 'pgd:epss=3' has the option 'epss'.", "one of 'eps', 'alpha',", 'Correct the name.')),
    ("images.parse_condition", lambda: im.parse_condition(3), "ConditionError", ('A condition is given as a int.', 'a string, a mapping {"name":', 'Write "clean" or')),
    ("images.parse_conditions", lambda: im.parse_conditions(["fog@1", "fog@1"]), "ConditionError", ("The condition 'fog@1' is given twice, by itself or in a", 'at least one condition, each', 'Name each once, such as')),
    ("images.Attack", lambda: im.Attack(norm="l7"), "ConditionError", ("The norm of the attack is 'l7'.", "'linf' or 'l2' (nearest: 'l2')", 'Correct the name.')),
    ("images.Attack", lambda: im.Attack(steps="ten"), "ConditionError", ("steps is 'ten'.", 'a whole number from 1', 'Give steps=10, say.')),
    ("images.Condition", lambda: im.Condition("mine", "fog", 9), "ConditionError", ("The severity of 'fog' is 9.", 'a whole number from 1', 'See')),
    ("images.Corruption", lambda: im.Corruption("a", ((0.1,),), ("b",), "tone", abs), "ConditionError", ("'a' has the parameters ((0.1,),) for the names ('b',).", 'five rows of numbers, for', 'Give parameters=((1.0,),')),
    ("images.FourierWave", lambda: im.FourierWave((9.0, 9.0), 1.0), "ConditionError", ('The frequency of a wave is (9, 9) cycles per pixel.', 'two values within ±0.5', 'Divide the cycles per image')),
    ("images.FourierNoise", lambda: im.FourierNoise((0.5, 0.1)), "ConditionError", ('The band of Fourier noise goes from 0.5 to 0.1 cycles per', '0 <= low < high <= 0.71, the', 'Write (0, 1/8) for low')),
    ("images.fourier_noise", lambda: im.fourier_noise(pixels, image_ids=["a"]), "ConditionError", ('1 image_ids were given for 2 images.', 'a sequence of strings, one', 'Give the ids of the data set,')),
    ("images.frost", lambda: im.frost(here / "no frost"), "DatasetError", ('frost does not exist.', 'a folder with photographs of', 'Check the path; the')),
    ("images.measure_frequency", lambda: im.measure_frequency(data, [], progress=False), "ConditionError", ('No conditions were given.', 'at least one condition, each', 'Name each once, such as')),
    ("images.ActivationChange", lambda: vl.pgd(model, pixels, objective=im.ActivationChange("no")), "HookError", ("'no' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("corrupt", lambda: vl.corrupt(pixels, "fogg"), "ConditionError", ("There is no corruption 'fogg'.", 'a key of vitlens.CORRUPTIONS,', 'Correct the name, register it')),
    ("corrupt", lambda: vl.corrupt(pixels, "fog", 6, image_ids=["a", "b"]), "ConditionError", ("The severity of 'fog' is 6.", 'a whole number from 1', 'See')),
    ("corrupt", lambda: vl.corrupt(pixels, "fog"), "ConditionError", ("'fog' draws at random and no image_ids were given.", 'a sequence of strings, one', 'Give the ids of the data set,')),
    ("corrupt", lambda: vl.corrupt("pixels", "contrast"), "PixelError", ("The pixels to be corrupted by 'contrast' are a str, not a", 'floats in [0, 1], [batch 3', 'Give a torch tensor [batch 3')),
    ("corrupt", lambda: vl.corrupt(pixels[0], "contrast"), "PixelError", ("The pixels to be corrupted by 'contrast' have shape [3, 32,", 'floats in [0, 1], [batch 3', 'Bring them to [batch 3 height')),
    ("corrupt", lambda: vl.corrupt(pixels * 255, "contrast"), "PixelError", ("The pixels to be corrupted by 'contrast' go from", 'floats in [0, 1], [batch 3', 'Undo any normalization and')),
    ("corrupt", lambda: vl.corrupt(pixels, "fog", image_ids=["a"]), "ConditionError", ('1 image_ids were given for 2 images.', 'a sequence of strings, one', 'Give the ids of the data set,')),
    ("register_corruption", lambda: vl.register_corruption("mine"), "ConditionError", ('The corruption is a str.', 'a vitlens.images.Corruption', 'See the example of')),
    ("register_corruption", lambda: vl.register_corruption(vl.CORRUPTIONS["fog"]), "ConditionError", ("'fog' is a name of vitlens.", 'a name that no corruption,', 'Rename yours; results under')),
    ("spectrum", lambda: vl.spectrum(pixels, pixels[:1]), "ShapeError", ('pixels have shape [2, 3, 32, 32] and corrupted [1, 3, 32,', 'one shape', 'Give the same images before')),
    ("spectrum", lambda: vl.spectrum(pixels, "x"), "PixelError", ('The pixels after the perturbation are a str, not a tensor.', 'floats in [0, 1], [batch 3', 'Give a torch tensor [batch 3')),
    ("fgsm", lambda: vl.fgsm(model, pixels, torch.tensor([0, 9])), "LabelError", ('The labels go from 0 to 9.', 'a tensor of whole numbers', 'Give the index of a class for')),
    ("fgsm", lambda: vl.fgsm(model, pixels, labels, eps_pixel=4), "ConditionError", ('eps_pixel is 4.', 'a number from 0 to 1, for', 'Did you mean 4/255?')),
    ("pgd", lambda: vl.pgd(model, pixels, labels, steps=0), "ConditionError", ('steps is 0.', 'a whole number from 1', 'Give steps=10, say.')),
    ("pgd", lambda: vl.pgd(model, pixels), "ConditionError", ('The attack is given no labels.', 'labels, targets, or an', 'Pass the correct classes,')),
    ("pgd", lambda: vl.pgd(headless, pixels, labels), "ConditionError", ('The attack raises the cross-entropy of the correct class,', 'a model with at least two', 'Aim inside:')),
    # SAEs
    ("saes.train", lambda: saes.train(x, d_sae=0, **tiny), "SAEError", ('d_sae is 0.', 'a finite number, 1 or more', 'Try 8 times the width of the')),
    ("saes.train", lambda: saes.train(x, d_sae="12", **tiny), "SAEError", ("d_sae is '12'.", 'a number', 'Try 8 times the width of the')),
    ("saes.train", lambda: saes.train(x[0], d_sae=12, **tiny), "SAEError", ("The source's activations have shape [8] and dtype", 'floating-point activations', 'Flatten images and positions')),
    ("saes.train", lambda: saes.train("x", d_sae=12, **tiny), "SAEError", ("The source's activations are a str.", 'a tensor [token d_in], or a', 'Take them with')),
    ("saes.train", lambda: saes.train(x, kind="relu", d_sae=12, **tiny), "SAEError", ("kind is 'relu'.", "one of 'batch_topk',", "The nearest is 'jumprelu'.")),
    ("saes.train", lambda: saes.train(x * torch.nan, d_sae=12, **tiny), "SAEError", ("The source's activations hold NaN or infinity in 200 of 200", 'finite numbers', 'Look for overflow in the')),
    ("saes.train", lambda: saes.train(x, d_sae=12, k_per_token=99, progress=False), "SAEError", ('k_per_token is 99 and d_sae 12.', '1 <= k_per_token <= d_sae', 'Lower k_per_token; it counts')),
    ("saes.train_crosscoder", lambda: saes.train_crosscoder({"a": x}, d_sae=12, **tiny), "SAEError", ("There are activations of 'a'.", 'those of two checkpoints', 'Pass {"base": activations,')),
    ("saes.train_crosscoder", lambda: saes.train_crosscoder({"a": x, "b": x[:9]}, d_sae=12, **tiny), "SAEError", ("The activations of 'a' and 'b' differ in their number of", 'the same tokens of the same', 'Take both of the same images,')),
    ("saes.load", lambda: saes.load(here / "no sae"), "CheckpointError", ('sae/cfg.json cannot be read as JSON ([Errno 2] No such file', 'a JSON file that vitlens wrote', 'Check the path, or make the')),
    ("saes.load", lambda: saes.load(here), "CheckpointError", ('cannot be read as JSON ([Errno 2] No such file or', 'a JSON file that vitlens wrote', 'Check the path, or make the')),
    ("saes.load", lambda: saes.load(3), "CheckpointError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("saes.load", lambda: saes.load(here / "sae", device="gpu"), "CheckpointError", ("device is 'gpu'.", '"cpu", "cuda", "cuda:1" or', 'Leave it out for the CPU.')),
    ("saes.save", lambda: saes.save("sae", here / "b"), "SAEError", ('The SAE is a str.', 'a sae-lens SAE in its', 'Take what vitlens.saes.train')),
    ("saes.save", lambda: saes.save(sae, here), "SAEError", ('exists and holds something other than an SAE.', 'a new path, or the folder of', 'Choose another path; nothing')),
    ("saes.save", lambda: saes.save(sae, 3), "CheckpointError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("saes.Crosscoder", lambda: saes.Crosscoder.load(here / "sae"), "CheckpointError", ('holds an SAE that is no crosscoder of format', 'a folder that Crosscoder.save', 'Check the path; a training')),
    ("saes.ActivationStore", lambda: saes.ActivationStore.open(here / "no store"), "CheckpointError", ('store/manifest.json cannot be read as JSON ([Errno 2] No', 'a JSON file that vitlens wrote', 'Check the path, or make the')),
    ("saes.ActivationStore", lambda: saes.ActivationStore.open(3), "CheckpointError", ('path is 3.', 'a path', 'Name a file or a folder, as')),
    ("saes.ActivationStore", lambda: store["blocks.0.hook_z"], "HookError", ("'blocks.0.hook_z' is not in the store", 'one of its 1 hooks (nearest:', 'See store.hook_names; another')),
    ("saes.ActivationStore", lambda: store.batches(HOOK, 0), "SAEError", ('batch_size is 0.', 'at least 1 token', 'Pass batch_size=4096.')),
    ("saes.ActivationStore", lambda: store.tokens(HOOK, checkpoint="b"), "SAEError", ("The store has no checkpoint 'b'.", "one of 'model'", 'Name one of them, or store')),
    ("saes.ActivationStore", lambda: saes.ActivationStore.write(here / "c", model, data, hook_names=HOOK), "SAEError", ("hook_names is 'blocks.1.hook_resid_post'.", 'a list of hooks, each once', 'Pass')),
    ("saes.ActivationStore", lambda: saes.ActivationStore.write(here / "c", model, data, hook_names=[HOOK], dtype="int8"), "SAEError", ("dtype is 'int8'.", "one of 'float32', 'bfloat16',", "Leave it out for 'float32'.")),
    ("saes.ActivationStore", lambda: saes.ActivationStore.write(here / "c", model, data, hook_names=["no"], **quiet), "HookError", ("'no' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("saes.ActivationStore", lambda: saes.ActivationStore.write(here / "c", "model", data, hook_names=[HOOK], **quiet), "AnalysisError", ('The model is a str.', 'a HookedViT, or a mapping of', 'Wrap a module of timm:')),
    ("saes.evaluate", lambda: saes.evaluate(narrow, model, data, **quiet), "SAEError", ("The activation at 'blocks.1.hook_resid_post' is (3, 5, 8),", 'an activation of [batch, pos,', 'Use the SAE at the hook that')),
    ("saes.evaluate", lambda: saes.evaluate(sae, model, data, tokens="register", **quiet), "ArchitectureError", ("This model has no 'register' token.", 'one of cls, patch, all', 'Choose a kind of token that')),
    ("saes.evaluate", lambda: saes.evaluate("sae", model, data, **quiet), "SAEError", ('The SAE is a str.', 'a sae-lens SAE in its', 'Take what vitlens.saes.train')),
    ("saes.SAECode", lambda: vl.run(model, data, [saes.SAECode(narrow)], **quiet), "SAEError", ("The activation at 'blocks.1.hook_resid_post' is (3, 5, 8),", 'an activation of [batch, pos,', 'Use the SAE at the hook that')),
    ("saes.SAECode", lambda: vl.run(model, data, [saes.SAECode(sae, "blocks.9.hook_resid_post")], **quiet), "HookError", ("'blocks.9.hook_resid_post' is not a hook of this model.", 'one of its 41 hooks (nearest:', 'See model.hook_names.')),
    ("saes.Splice", lambda: saes.Splice("sae"), "SAEError", ('The SAE is a str.', 'a sae-lens SAE in its', 'Take what vitlens.saes.train')),
    ("saes.FeatureAttribution", lambda: saes.FeatureAttribution(3), "SAEError", ('The SAE is a int.', 'a sae-lens SAE in its', 'Take what vitlens.saes.train')),
    ("saes.FeatureEffect", lambda: saes.FeatureEffect(sae, features=[99]), "SAEError", ('features has 99.', 'one or more of 0 to 11, each', 'See the features of a match,')),
    ("saes.FeatureObjective", lambda: saes.FeatureObjective(sae, 99), "SAEError", ("The feature is 99 and the direction 'raise'.", 'a feature from 0 to 11, and', 'Count from 0; a feature is a')),
    ("saes.FeatureObjective", lambda: saes.FeatureObjective(sae, 0, "up"), "SAEError", ("The feature is 0 and the direction 'up'.", 'a feature from 0 to 11, and', 'Count from 0; a feature is a')),
    ("saes.match", lambda: saes.match(sae, narrow), "SAEError", ('sae_a has d_in 8, sae_b 4.', 'SAEs of one width', 'Match SAEs of the same hook')),
    ("saes.match", lambda: saes.match(sae, "sae"), "SAEError", ('sae_b is a str.', 'a sae-lens SAE in its', 'Take what vitlens.saes.train')),
    ("saes.match", lambda: saes.match(sae, sae, method="best"), "SAEError", ("method is 'best'.", "one of 'mutual', 'hungarian'", "The nearest is 'hungarian'.")),
    ("saes.match", lambda: saes.match(sae, sae, nulls=3), "SAEError", ('nulls is a int.', 'a mapping of "seed" and', 'Write nulls={"seed": [...],')),
    ("saes.similarity", lambda: saes.similarity({"a": [sae]}, progress=False), "SAEError", ('saes has SAEs of a.', 'SAEs of two checkpoints or', 'Pass {"base": [...], "tuned":')),
    ("saes.gallery", lambda: saes.gallery(sae, model, data, [99], **quiet), "SAEError", ('features holds 99.', 'at least one feature, from 0', 'Count from 0; a feature is a')),
    ("saes.gallery", lambda: saes.gallery(sae, model, data, choose="best", **quiet), "SAEError", ("choose is 'best'.", "one of 'random',", "The nearest is 'class_lift'.")),
    ("saes.pair_gallery", lambda: saes.pair_gallery({"a": sae}, {"a": model}, data, pairs=pd.DataFrame(), **quiet), "SAEError", ("The SAEs are of ['a'], the models ['a'].", 'two checkpoints, the same', 'Pass {"base": sae_a, "tuned":')),
    ("saes.ablation_hook", lambda: saes.ablation_hook(sae, model, [99]), "SAEError", ('features has 99.', 'one or more of 0 to 11, each', 'See the features of a match,')),
    ("saes.steering_hook", lambda: saes.steering_hook(sae, model, [1]), "SAEError", ('0 of scale, value and strength are given.', 'one of them', 'Pass scale=2.0 to double the')),
    ("saes.feature_effects", lambda: saes.feature_effects({"a": model}, {"a": sae}, None, data), "SAEError", ("The models are ['a'], the SAEs are of ['a'].", 'two checkpoints, the same', 'Pass {"base": base, "tuned":')),
    ("saes.transfer", lambda: saes.transfer({"a": model}, {"b": sae}, data), "SAEError", ("There is an SAE of 'b', which is none of the checkpoints.", "one of them (nearest: 'a')", 'Name each SAE after the')),
    ("saes.set_threshold", lambda: saes.set_threshold(sae, x[:, :4], 2, progress=False), "SAEError", ("The activations are 4 wide, the SAE's d_in is 8.", 'activations from the hook', 'Take them at the hook that')),
    ("saes.figures", lambda: saes.figures(sae, x[:, :4], progress=False), "SAEError", ("The activations are 4 wide, the SAE's d_in is 8.", 'activations from the hook', 'Take them at the hook that')),
    ("saes.figures", lambda: saes.figures(sae, "x", progress=False), "SAEError", ('The activations are a str.', 'a tensor [token d_in], or a', 'Take them with')),
    ("saes.fvu", lambda: saes.fvu(x, x[:9]), "ShapeError", ('x has shape [200, 8], x_hat [9, 8].', '[token d_in], twice', 'Flatten images and positions')),
    ("saes.history", lambda: saes.history("sae"), "SAEError", ('The SAE is a str.', 'an SAE that', 'Load a folder with')),
    ("saes.InMemory", lambda: saes.InMemory(x[0]), "SAEError", ('The activations are (8,).', 'a tensor [token, d_in]', 'Flatten the axes before the')),
    ("saes.attribution_agreement", lambda: saes.attribution_agreement(rows), "SAEError", ("The data do not have both 'sae_ablated_logit_change' along", 'what FeatureEffect, of', 'Run both together, with one')),
    # comparison
    ("compare", lambda: vl.compare({"base": model}, data, **quiet), "ComparisonError", ('There are 1 checkpoints.', 'two or more', 'Pass {"base": ..., "tuned":')),
    ("compare", lambda: vl.compare({"base": model, "tuned": wide}, data, **quiet), "ArchitectureError", ("'base' and 'tuned' are of different architectures (d_model", 'checkpoints of one', 'Compare checkpoints that were')),
    ("compare", lambda: vl.compare({"base": model, "tuned": other}, data, saes={"base": [narrow], "tuned": [narrow]}, **quiet), "ComparisonError", ('Among the SAEs of base, tuned there is no pair to match.', "SAEs of 'base' and of another", 'Train them with')),
    ("compare", lambda: vl.compare({"base": model, "tuned": other}, data, conditions=["fog@7"], **quiet), "ConditionError", ("The condition 'fog@7' has the severity '7'.", '"fog@1" (mildest) to "fog@5",', 'Write "fog@3", say.')),
    ("Comparison", lambda: vl.Comparison.load(here / "none"), "CheckpointError", ('There is no file', 'a file that Comparison.save', 'Check the path.')),
    ("Comparison", lambda: vl.Comparison.load(good), "CheckpointError", ('is a file of safetensors and holds no comparison.', 'a file that Comparison.save', "A model's weights are read by")),
    ("Comparison", lambda: vl.Comparison.load(file("zeros.cmp", bytes(200))), "CheckpointError", ('cannot be read (Safetensor', 'a whole file, as', 'Copy it again, or make the')),
    ("Comparison", lambda: made.report(here), "ComparisonError", ('is a folder.', 'the name of a file', 'Add one, such as report.html.')),
    ("Comparison", lambda: made.summary(margins={"top1_acuracy": 0.1}), "ComparisonError", ("margins names 'top1_acuracy', which is no metric of these", 'one of: top1_accuracy,', "Nearest: 'top1_accuracy',")),
    ("Comparison", lambda: vl.Comparison(rows, "bse", 10).summary(), "ComparisonError", ("reference names 'bse', which is no checkpoint of these data.", 'one of: base, tuned', "Nearest: 'base'.")),
    ("comparison.summarize", lambda: summarize(rows, level=2.0), "ComparisonError", ('level is 2.0.', 'a value between 0.5 and 1', 'Leave it out for the usual')),
    ("comparison.transfer", lambda: transfer(rows, seen=["fog@1"], unseen=[]), "ComparisonError", ("The pool 'seen' names 'fog@1', which is no condition of", 'one of: clean', "Nearest: 'clean'.")),
    ("comparison.across_seeds", lambda: across_seeds(summary, ["a"]), "ComparisonError", ("recipes", " ", ".")),
    ("comparison.to_latex", lambda: to_latex(summary, metrics=["x"]), "ComparisonError", ("metrics names 'x', which the rows do not have.", 'some of top1_accuracy,', "Nearest: 'top10_accuracy',")),
    ("calibration_error", lambda: vl.calibration_error(rows), "ComparisonError", ('The data have no predicted_probability.', 'the variables of Prediction', 'Give the result of')),
    ("calibration_error", lambda: vl.calibration_error("rows"), "ComparisonError", ('The data have no rank and no predicted_probability.', 'the variables of Prediction', 'Give the result of')),
    ("gap_closed", lambda: vl.gap_closed(rows), "ComparisonError", ('The data hold nothing of Transplant (variables: rank).', 'a run that Transplant took', 'Add Transplant() to the')),
    ("gap_closed", lambda: vl.gap_closed(3), "ComparisonError", ('The data are a int.', 'an xarray.Dataset of values', 'Give comparison.data, or what')),
    ("mean_corruption_error", lambda: vl.mean_corruption_error(rows), "ComparisonError", ('The data lack gaussian_noise, shot_noise, impulse_noise,', 'severities 1 to 5 of the', 'Run these conditions too, or')),
    ("patching_agreement", lambda: vl.patching_agreement(rows), "ComparisonError", ('The data hold nothing of Transplant and AttributionPatching', 'a run that Transplant and', 'Add Transplant() and')),
    ("report.write", lambda: write_report(made, here), "ComparisonError", ('is a folder.', 'the name of a file', 'Add one, such as report.html.')),
    ("report.write", lambda: write_report("made", here / "r.html"), "ComparisonError", ('The comparison is a str.', 'what vitlens.compare gives,', 'Read a saved one with')),
    ("report.figures", lambda: draw("made"), "ComparisonError", ('The comparison is a str.', 'what vitlens.compare gives,', 'Read a saved one with')),
    ("report.fourier_heat_map_figure", lambda: fourier_heat_map_figure(rows), "ComparisonError", ('The data are no Fourier heat map.', 'a data set with error,', 'Give what')),
    # training
    ("training.FinetuneConfig", lambda: training.FinetuneConfig(p_clean=2.0), "TrainingError", ('p_clean is 2.0.', 'a probability', 'Correct the FinetuneConfig.')),
    ("training.FinetuneConfig", lambda: dataclasses.replace(config, conditions=["fogg"]), "ConditionError", ("There is no corruption 'fogg'.", 'a key of vitlens.CORRUPTIONS,', 'Correct the name, register it')),
    ("training.finetune", lambda: training.finetune(wide, [], config, progress=False), "TrainingError", ('The data set is a list without items by index.', 'a sequence or a map-style', 'Put the items into a list, or')),
    ("training.finetune", lambda: training.finetune(headless, data, config, progress=False), "TrainingError", ('The data set has labels, but an unknown number of classes,', 'a model whose classifier has', 'Give the indices of the')),
    ("training.finetune", lambda: training.finetune(model, data, config, output=3, progress=False), "TrainingError", ('output is 3.', 'a path', 'Name a file or a folder, as')),
    ("training.finetune", lambda: training.finetune(model, data, config, output=good, progress=False), "TrainingError", ('cannot be written (FileExists', 'a folder that can be made, in', 'Name another, or see to its')),
    ("training.Adversarial", lambda: training.Adversarial(steps=0), "ConditionError", ('steps is 0.', 'a whole number from 1', 'Give steps=10, say.')),
    ("training.Consistency", lambda: training.Consistency(weight=-1), "TrainingError", ('weight is -1.', 'a finite number of 0 or more', 'Correct weight.')),
    ("training.Trades", lambda: training.Trades(norm="l9"), "ConditionError", ("The norm of the attack is 'l9'.", "'linf' or 'l2' (nearest: 'l2')", 'Correct the name.')),
    ("training.read_evaluations", lambda: training.read_evaluations(here / "no run"), "TrainingError", ('run holds no finished evaluation.', 'the output folder of a', 'Name that folder, or')),
    ("training.read_evaluations", lambda: training.read_evaluations(3), "TrainingError", ('folder is 3.', 'a path', 'Name a file or a folder, as')),
    ("training.set_trainable", lambda: training.set_trainable(model, "hed"), "TrainingError", ("trainable names 'hed'.", "'all', 'head', 'attention',", 'Correct the word.')),
    ("training.set_trainable", lambda: training.set_trainable("model"), "TrainingError", ('model is a str.', 'a HookedViT', 'Wrap it:')),
    ("training.write_curves", lambda: training.write_curves(here / "no run"), "TrainingError", ('run holds no log.jsonl.', 'the output folder of a', 'Name that folder.')),
    ("training.write_curves", lambda: training.write_curves(3), "TrainingError", ('folder_or_log is 3.', 'a path', 'Name a file or a folder, as')),
    # functions of tensors
    ("functional.attention_distance", lambda: F.attention_distance(torch.rand(2, 4, 4), torch.rand(3, 3)), "ShapeError", ('The distances have shape (3, 3), the pattern (2, 4, 4).', "[query, key] as the pattern's", 'Give patch_distances of the')),
    ("functional.attention_entropy", lambda: F.attention_entropy(torch.rand(4)), "ShapeError", ('The pattern is of shape (4,).', '[..., query, key]', 'Give hook_pattern as it was')),
    ("functional.attention_entropy", lambda: F.attention_entropy("pattern"), "ShapeError", ('The pattern is str.', '[..., query, key]', 'Give hook_pattern as it was')),
    ("functional.attention_rollout", lambda: F.attention_rollout([]), "ShapeError", ('There is no layer.', 'one map or more', 'Give the map of each layer,')),
    ("functional.gradient_rollout", lambda: F.gradient_rollout([]), "ShapeError", ('There is no layer.', 'one map or more', 'Give the map of each layer,')),
    ("functional.fuse_heads", lambda: F.fuse_heads(torch.rand(2, 4, 4), "sum"), "ShapeError", ("fusion is 'sum'.", "'mean', 'max' or 'min'", 'Leave it out for the mean.')),
    ("functional.discard_smallest", lambda: F.discard_smallest(torch.rand(4, 4), 2.0), "ShapeError", ('ratio is 2.0.', 'a share in [0, 1)', 'Write 0.9 for nine tenths.')),
    ("functional.calibration_error", lambda: F.calibration_error(torch.rand(3), torch.ones(2) > 0), "ShapeError", ('There are 3 confidences and 2 answers.', 'one of each for every image', 'Give both of the same images.')),
    ("functional.confidence_bin", lambda: F.confidence_bin(torch.rand(3), 0), "AnalysisError", ('n_bins is 0.', '1 or more', '15 is usual.')),
    ("functional.cka_moments", lambda: F.cka_moments(torch.rand(3, 2), torch.rand(4, 2)), "ShapeError", ('The representations have shapes (3, 2) and (4, 2).', 'the same places and images,', 'Give a row an image of both,')),
    ("functional.linear_cka", lambda: F.linear_cka(torch.rand(3, 2), torch.rand(4, 2)), "ShapeError", ('The representations have shapes (3, 2) and (4, 2).', 'the same places and images,', 'Give a row an image of both,')),
    ("functional.integrated_gradients", lambda: F.integrated_gradients(abs, pixels, pixels[:1]), "ShapeError", ('The inputs have shape (2, 3, 32, 32), the baselines (1, 3,', 'a baseline for each input, of', 'Expand one baseline:')),
    # commands
    ("cli", lambda: command("compare"), "Refused", ('vitlens compare: error: the following arguments are required: BASE, TUNED, --data',)),
    ("cli", lambda: command("comapre"), "Refused", ("vitlens: error: argument COMMAND: invalid choice: 'comapre' (choose from 'compare', 'evaluate', 'finetune',",)),
    ("cli", lambda: command("compare", good, here / "none", "--data", here), "Refused", ('Expected: a .safetensors, .pth or .pt file. Check the path.',)),
    ("cli", lambda: command("compare", good, good, "--data", here / "none", "--output", here / "r.html"), "Refused", ('does not exist. Expected: a folder with one folder of images for each class. Check the path; images lie at',)),
    ("cli", lambda: command("compare", good, good, "--data", here, "--seed", "x"), "Refused", ("vitlens compare: error: argument --seed: 'x' is no whole number such as 0 or 32",)),
    ("cli", lambda: command("evaluate", good, "--data", here / "none"), "Refused", ('does not exist. Expected: a folder with one folder of images for each class. Check the path; images lie at',)),
    ("cli", lambda: command("evaluate", good, "--data", here, "--conditions", "fogg@3"), "Refused", ("vitlens evaluate: There is no corruption 'fogg'. Expected: a corruption, a group or an attack (nearest:",)),
    ("cli", lambda: command("finetune", here / "none", "--data", here, "--output", here / "run"), "Refused", ('vitlens finetune: --p-clean is 0.5. Expected: 1, as there are no conditions. Correct it.',)),
    ("cli", lambda: command("train-sae", good, "--data", here, "--hook", "no", "--output", here / "o"), "Refused", ('vitlens train-sae: There are 2 class folders (sae, store), and the model has 3 classes. Expected: a folder',)),
    ("cli", lambda: command("corrupt", here / "no.jpg", "--output", here / "s.html"), "Refused", ('cannot be read as an image (FileNotFound',)),
    ("cli", lambda: command("corrupt", good, "--output", here / "s.html"), "Refused", ('cannot be read as an image (UnidentifiedImage',)),
]  # fmt: skip


def outcome(call):
    """The class of the error, and what it says was given, was expected and is to be done."""
    try:
        call()
    except errors.VitlensError as error:
        return type(error).__name__, error.given, error.expected, error.remedy
    except RefusedError as error:
        return "Refused", str(error), "", ""
    except Exception as error:
        return f"bare {type(error).__name__}", str(error), "", ""
    return "nothing", "", "", ""


if __name__ == "__main__":
    told = [[name, kind, words, outcome(call)] for name, call, kind, words in CASES]
    shutil.rmtree(here)
    sys.stdout.write(json.dumps(told))

"""Arguments of a wrong type, which the tests' own type checker would catch first: in a plain process."""

import subprocess
import sys

SLIPS = """
import sys, types
import pandas as pd, timm, xarray as xr
import vitlens as vl
from vitlens.comparison.latex import to_latex
from vitlens.errors import VitlensError

sys.modules["kaleido"] = types.ModuleType("kaleido")
sys.modules["kaleido"].__spec__ = types.SimpleNamespace()
vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=1)
model = vl.HookedViT(vit)
models = {"base": model, "tuned": model}
images = [vl.images.digits("test")[0]]
data = xr.Dataset({"rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]])})
data = data.assign_coords(checkpoint=["base", "tuned"], condition=["clean"], image=["a", "b"])
made = vl.Comparison(data, "base", 10)
summary = made.summary()
quiet = {"progress": False}
slips = {
    "models in a list": lambda: vl.compare([model, model], images, **quiet),
    "modules of timm": lambda: vl.compare({"base": vit, "tuned": vit}, images, **quiet),
    "paths for models": lambda: vl.compare({"base": "a.pth", "tuned": "b.pth"}, images, **quiet),
    "output 3": lambda: vl.compare(models, images, output=3, **quiet),
    "n_examples as text": lambda: vl.compare(models, images, n_examples="4", **quiet),
    "n_examples -1": lambda: vl.compare(models, images, n_examples=-1, **quiet),
    "n_examples True": lambda: vl.compare(models, images, n_examples=True, **quiet),
    "n_gallery_features as text": lambda: vl.compare(models, images, n_gallery_features="6", **quiet),
    "n_gallery_features -1": lambda: vl.compare(models, images, n_gallery_features=-1, **quiet),
    "seed -1": lambda: vl.compare(models, images, seed=-1, **quiet),
    "saes in a list": lambda: vl.compare(models, images, saes=[vit], **quiet),
    "an SAE in no list": lambda: vl.compare(models, images, saes={"base": vit, "tuned": vit}, **quiet),
    "no SAE in a list": lambda: vl.compare(models, images, saes={"base": [vit], "tuned": [3]}, **quiet),
    "SAEs as text": lambda: vl.compare(models, images, saes={"base": "a", "tuned": "b"}, **quiet),
    "no model behind the null": lambda: vl.compare(models, images, saes={}, unrelated_model=vit, **quiet),
    "galleries in a list": lambda: vl.Comparison(data, "base", 10, galleries=[3]).save("a"),
    "an analysis's class": lambda: vl.compare(models, images, analyses=[vl.Prediction], **quiet),
    "save to None": lambda: made.save(None),
    "load of 3": lambda: vl.Comparison.load(3),
    "export to 3": lambda: made.export(3, ["svg"]),
    "formats 3": lambda: made.export("a", 3),
    "formats as text": lambda: made.export("a", "svg"),
    "scale as text": lambda: made.export("a", ["svg"], scale="2"),
    "a table of no table": lambda: to_latex([1]),
    "metrics as text": lambda: to_latex(summary, metrics="top1_accuracy"),
    "digits 2.5": lambda: to_latex(summary, digits=2.5),
    "digits -1": lambda: to_latex(summary, digits=-1),
    "a table written to 3": lambda: to_latex(summary, 3),
    "an object in the provenance": lambda: vl.Comparison(data, "base", 10, provenance={"a": model}).save("a"),
}
for name, slip in slips.items():
    try:
        slip()
        print(name, "passed")
    except VitlensError:
        pass
    except Exception as error:
        print(name, repr(error))
"""


def test_every_slip_is_answered_by_an_error_of_vitlens(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", SLIPS], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.stdout == "", result.stdout
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []

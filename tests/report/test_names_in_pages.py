"""Names that are markup, in every page that vitlens writes, in a browser: no dialog, no script of theirs."""

import dataclasses
import json

import pytest
import torch

from vitlens import report
from vitlens.images import Corruption
from vitlens.images.corruptions import registry
from vitlens.report import corruption_sheet
from vitlens.training.curves import write_curves
from vitlens.training.log import Log

from .made import made_comparison
from .made_gallery import made_gallery

EVIL = (
    "<script>alert(1)</script>",
    '"onmouseover="alert(1)',
    "</script><img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "'onfocus='alert(1)' autofocus='",
)
PAGES = ("report", "gallery", "sheet", "curves")


def write(page, name, folder, monkeypatch):
    path = folder / f"{page}.html"
    if page == "report":
        conditions = ("clean", "gaussian_blur@3", name)
        made = made_comparison(("base", name), conditions, n_images=20, class_names=[name] * 10, n_examples=1)
        made.data["entropy_nats"].attrs |= {"long_name": name, "units": name, "description": name}
        return report.write(made, path, title=name)
    if page == "gallery":
        gallery = made_gallery(checkpoints=("base", name))
        evil = dataclasses.replace(
            gallery, class_names=[name] * 5, provenance={**gallery.provenance, "condition": name, name: name}
        )
        return evil.report(path, title=name)
    if page == "sheet":
        spec = Corruption("mine", ((1.0,),) * 5, (name,), name, lambda pixels, factor: pixels)
        monkeypatch.setitem(registry._REGISTERED, "mine", spec)
        pixels = torch.rand(3, 32, 32)
        return corruption_sheet.write(pixels, path, names=["mine"], image_id=name, progress=False)
    log = Log(folder / "log.jsonl")
    row = {"top1_accuracy": 0.5, "top1_low": 0.4, "top1_high": 0.6, "n_images": 9}
    row |= {"correct_probability": 0.5, "correct_probability_low": 0.4, "correct_probability_high": 0.6}
    log.write({"kind": "step", "step": 0, "loss": 1.0, "learning_rate": 0.1, "images_per_second": 1.0})
    log.write({"kind": "evaluation", "step": 1, "condition": name, **row})
    (folder / "config.json").write_text(json.dumps({"config": {"seed": name}, name: name}))
    return write_curves(folder, path, title=name)


@pytest.mark.parametrize("page", PAGES)
def test_no_name_runs_as_a_script(page, browser, tmp_path, monkeypatch):
    context = browser.new_context()
    context.set_offline(True)
    for number, name in enumerate(EVIL):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(page, name, folder, monkeypatch)
        said = []
        shown = context.new_page()
        shown.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
        shown.on("pageerror", lambda error, said=said: said.append(str(error)))
        shown.goto(path.as_uri())
        # What a name could have become: a handler, a link that runs, or an element of its own.
        odd = shown.evaluate(
            """() => [...document.querySelectorAll('*')].filter((each) =>
                each.hasAttribute('onmouseover') || each.hasAttribute('onerror')
                || each.hasAttribute('onfocus') || each.getAttribute('src') === 'x'
                || /^javascript:/i.test(each.getAttribute('href') || each.getAttribute('xlink:href') || '')
            ).map((each) => each.outerHTML.slice(0, 200))"""
        )
        shown.wait_for_timeout(100)
        assert (name, odd, said) == (name, [], [])
        shown.close()
    context.close()

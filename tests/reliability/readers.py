"""What vitlens reads from disk, each with a small whole example, a reader, and a forger of its checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vitlens as vl
from vitlens.comparison import storing
from vitlens.saes import crosscoder_entry, store_manifest
from vitlens.testing import randomize
from vitlens.training.checkpoints import Checkpoints
from vitlens.training.evaluating import read_evaluations
from vitlens.training.log import Log
from vitlens.training.state import State, _checksum, read_state

try:
    from .damage import changed_json
except ImportError:  # as a program
    from damage import changed_json

Draw = Callable[..., Any]
# No architecture of timm has patches of 7 pixels: the search for the likeliest one ends at once.
SHAPE: dict[str, Any] = {
    "img_size": 14,
    "patch_size": 7,
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
    "num_classes": 3,
}
PLACE = "blocks.0.hook_resid_post"


def model(seed: int = 0) -> vl.HookedViT:
    return vl.HookedViT(randomize(timm.models.VisionTransformer(**SHAPE), seed=seed).eval())


def items(n: int = 5) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, 14, 14, generator=generator), "label": i % 3, "image_id": f"image {i}"}
        for i in range(n)
    ]


class Reader:
    """One kind of file or folder that vitlens reads.

    Attributes:
        name: as the table has it.
        is_sealed: whether any accident to its files is noticed; without it, changed values are read as they
            stand.
    """

    name: str
    is_sealed = True

    def make(self, folder: Path) -> None:
        raise NotImplementedError

    def read(self, folder: Path) -> Any:
        """What is read, as something that `==` compares."""
        raise NotImplementedError

    def forge(self, draw: Draw, folder: Path) -> None:
        """Change what the files say, and make their checksums right again."""
        raise NotImplementedError


class Model(Reader):
    name = "model (.safetensors)"
    is_sealed = False

    def make(self, folder: Path) -> None:
        vl.save(model(), folder / "model.safetensors")

    def read(self, folder: Path) -> Any:
        read = vl.load(folder / "model.safetensors")
        read.normalize(torch.zeros(1, 3, 14, 14))
        return vl.weights_sha256(read), read.data_config, read.description

    def forge(self, draw: Draw, folder: Path) -> None:
        tensors, metadata = opened(folder / "model.safetensors")
        key = draw_from(draw, ["architecture", "architecture", "data_config", "provenance"])
        metadata[key] = json.dumps(changed_json(draw, json.loads(metadata[key])))
        save_file(tensors, folder / "model.safetensors", metadata=metadata)


class StateDict(Reader):
    name = "state dict (.pth)"
    is_sealed = False

    def make(self, folder: Path) -> None:
        torch.save(model().model.state_dict(), folder / "weights.pth")

    def read(self, folder: Path) -> Any:
        read = vl.load(folder / "weights.pth", architecture="vit_tiny_patch16_224", **SHAPE)
        return vl.weights_sha256(read)

    def forge(self, draw: Draw, folder: Path) -> None:
        state: dict[Any, Any] = torch.load(folder / "weights.pth", weights_only=True)
        name = draw_from(draw, sorted(state))
        strange = [
            None,
            3,
            "x",
            [state],
            {"a": 1},
            torch.zeros(0),
            state[name].to_sparse(),
            state[name].bool(),
        ]
        strange += [state[name].to(torch.complex64), state[name].to("meta"), torch.zeros(1).expand(10**6)]
        state[draw_from(draw, [name, name, 3, None])] = draw_from(draw, strange)
        torch.save(draw_from(draw, [state, {"model": state}]), folder / "weights.pth")


class Run(Reader):
    name = "run (manifest, rows, sums)"

    def make(self, folder: Path) -> None:
        self.measure(folder)

    def measure(self, folder: Path) -> Any:
        analyses = [vl.Prediction(), vl.CKA()]
        models = {"a": model(0), "b": model(1)}
        return vl.run(models, items(), analyses, output=folder, batch_size=2, shard_images=4, progress=False)

    def read(self, folder: Path) -> Any:
        read = self.measure(folder).to_dict()
        read["attrs"] = {}
        return json.dumps(read, default=str)

    def forge(self, draw: Draw, folder: Path) -> None:
        path = draw_from(draw, sorted(folder.glob("*.json")))
        said = changed_json(draw, json.loads(path.read_text()))
        if isinstance(said, dict) and "described_sha256" in said:
            from vitlens.running.store import _described_sha256

            said["described_sha256"] = _described_sha256(said)
        path.write_text(json.dumps(said))


class Evaluations(Run):
    name = "evaluations of a fine-tuning"

    def make(self, folder: Path) -> None:
        self.measure(folder / "evaluations" / "step-000003")

    def read(self, folder: Path) -> Any:
        return json.dumps(read_evaluations(folder).to_dict(), default=str)

    def forge(self, draw: Draw, folder: Path) -> None:
        super().forge(draw, folder / "evaluations" / "step-000003")


class Store(Reader):
    name = "activation store"

    def make(self, folder: Path) -> None:
        vl.saes.ActivationStore.write(
            folder, model(), items(), hook_names=[PLACE], batch_size=2, shard_images=2, progress=False
        )

    def read(self, folder: Path) -> Any:
        store = vl.saes.ActivationStore.open(folder, check=True)
        return [batch.tolist() for batch in store.batches(PLACE, 8)], store.image_ids, store.manifest

    def forge(self, draw: Draw, folder: Path) -> None:
        top = folder / "manifest.json"
        manifest = json.loads(top.read_text())
        number = draw_from(draw, [None, 0, 1, 2])
        if number is None:
            manifest = changed_json(draw, manifest)
        else:
            path = folder / f"shard-{number:06d}.json"
            path.write_text(json.dumps(changed_json(draw, json.loads(path.read_text()))))
            manifest["shards"][number]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if isinstance(manifest, dict):
            manifest["sha256"] = store_manifest._digest(manifest)
        top.write_text(json.dumps(manifest))


class Comparison(Reader):
    name = "saved comparison"

    def make(self, folder: Path) -> None:
        models = {"base": model(0), "tuned": model(1)}
        vl.compare(
            models, items(), analyses=[vl.Prediction()], progress=False, n_examples=1
        ).save(folder / "comparison.safetensors")  # fmt: skip

    def read(self, folder: Path) -> Any:
        read = vl.Comparison.load(folder / "comparison.safetensors")
        again = read.save(folder / "again.safetensors")
        with safe_open(again, framework="numpy") as file:
            content = file.metadata()["sha256"]
        again.unlink()
        return content

    def forge(self, draw: Draw, folder: Path) -> None:
        path = folder / "comparison.safetensors"
        from safetensors.numpy import load_file
        from safetensors.numpy import save_file as save_arrays

        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata())
        arrays: dict[str, np.ndarray] = load_file(path)
        metadata["content"] = json.dumps(changed_json(draw, json.loads(metadata["content"])))
        metadata["sha256"] = storing._checksum(metadata["content"], arrays)
        save_arrays(arrays, path, metadata=metadata)


class SAE(Reader):
    name = "SAE"

    def make(self, folder: Path) -> None:
        x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
        made = vl.saes.train(x, d_sae=12, k_per_token=2, batch_size=64, n_tokens=640, progress=False)
        vl.saes.save(made, folder / "sae")

    def read(self, folder: Path) -> Any:
        read = vl.saes.load(folder / "sae")
        weights = {name: each.tolist() for name, each in read.state_dict().items()}
        return weights, json.dumps(read.cfg.to_dict(), default=str)

    def forge(self, draw: Draw, folder: Path) -> None:
        path = folder / "sae" / "cfg.json"
        said = json.loads(path.read_text())
        entry = said.get("metadata", {}).get("crosscoder")
        if entry is not None and draw_from(draw, [True, False]):
            entry = changed_json(draw, entry)
            if isinstance(entry, dict):
                entry["sha256"] = crosscoder_entry._digest(entry)
            said["metadata"]["crosscoder"] = entry
        else:
            said = changed_json(draw, said)
        if isinstance(said, dict):
            from vitlens.saes import storage

            said = storage.sealed(said)
        path.write_text(json.dumps(said))


class Crosscoder(SAE):
    name = "crosscoder"

    def make(self, folder: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(200, 6, generator=generator) for _ in range(2))
        made = vl.saes.train_crosscoder(
            {"a": x, "b": y}, d_sae=12, k_per_token=2, batch_size=64, n_tokens=640, progress=False
        )
        made.save(folder / "sae")

    def read(self, folder: Path) -> Any:
        read = vl.saes.Crosscoder.load(folder / "sae")
        table = read.latents.to_json()
        return super().read(folder), table, read.checkpoints, read.scales, read.fvu, read.n_measured_tokens


class TrainingState(Reader):
    name = "fine-tuning checkpoint"

    def make(self, folder: Path) -> None:
        vit = model().model
        parts = {"model": vit.state_dict(), "scale": (1.0, [None, "x", torch.float32])}
        Checkpoints(folder).write(State(3, {"seed": 0}, 1, parts, {"prefix": "model."}))

    def read(self, folder: Path) -> Any:
        read = read_state(folder / "step-000003.safetensors")
        return read.step, read.run, read.n_parts, read.model, repr(read.parts)

    def forge(self, draw: Draw, folder: Path) -> None:
        path = folder / "step-000003.safetensors"
        tensors, metadata = opened(path)
        key = draw_from(draw, ["parts", "parts", "run", "step", "n_parts"])
        metadata[key] = json.dumps(changed_json(draw, json.loads(metadata[key])))
        metadata["crc32"] = str(_checksum(tensors, metadata))
        save_file(tensors, path, metadata=metadata)


class TrainingLog(Reader):
    name = "fine-tuning log"
    is_sealed = False

    def make(self, folder: Path) -> None:
        log = Log(folder / "log.jsonl")
        for step in range(4):
            log.write({"kind": "step", "step": step, "loss": 2.5 - step, "learning_rate": 1e-3})
            log.write(
                {"kind": "evaluation", "step": step, "condition": "clean", "top1_accuracy": 0.25 * step,
                 "top1_low": 0.0, "top1_high": 1.0, "correct_probability": 0.5, "n_images": 4}
            )  # fmt: skip

    def read(self, folder: Path) -> Any:
        log = Log(folder / "log.jsonl")
        log.best_step(), log.evaluated(2, ["clean"])
        log.frame("step")["loss"].astype(float)
        log.frame("evaluation")["top1_accuracy"].astype(float)
        return log.rows("step"), log.rows("evaluation")

    def forge(self, draw: Draw, folder: Path) -> None:
        path = folder / "log.jsonl"
        rows = changed_json(draw, [json.loads(line) for line in path.read_text().splitlines()])
        rows = rows if isinstance(rows, list) else [rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw_from(draw: Draw, values: list[Any]) -> Any:
    """One of some values."""
    from hypothesis import strategies as st

    return values[draw(st.integers(0, len(values) - 1))]


def opened(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


READERS: tuple[type[Reader], ...] = (
    Model, StateDict, Run, Evaluations, Store, Comparison, SAE, Crosscoder, TrainingState, TrainingLog,
)  # fmt: skip

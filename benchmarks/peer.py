"""A sentence-transformers CrossEncoder behind a pipe: run by engines.py in the peers' environment.

The first line is a JSON object with `name`, `model`, `pairs`, `threads` and `work` (a folder to
write a converted model to); then each line asks for one `predict` over all pairs. Every line is
answered by one line. Uses nothing of crossbench.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout, which belongs to the answers
    spec = json.loads(sys.stdin.readline())
    import torch

    torch.set_num_threads(spec["threads"])
    model = load(spec["name"], Path(spec["model"]), Path(spec["work"]), spec["pairs"])
    for line in ["load", *sys.stdin]:
        if line != "load":
            # 8 a batch: predict sorts by length, and small sorted batches are its best setting.
            model.predict(spec["pairs"], batch_size=8, show_progress_bar=False)
        answers.write("done\n")
        answers.flush()
        if line == "load":
            continue


def load(name: str, folder: Path, work: Path, pairs: list[list[str]]) -> object:
    from sentence_transformers import CrossEncoder

    if name.endswith("torch fp32"):
        return CrossEncoder(str(folder), device="cpu")
    shutil.copytree(folder, work)
    model = CrossEncoder(str(work), backend="openvino", device="cpu")
    if not name.endswith("int8"):
        return model
    from datasets import Dataset
    from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

    model.save_pretrained(str(work))
    quantizer = OVQuantizer(model.model)
    encoded = model.tokenizer(pairs[:32], padding="max_length", max_length=128, truncation=True)
    config = OVConfig(quantization_config=OVQuantizationConfig())
    target = work / "openvino"
    quantizer.quantize(
        ov_config=config,
        calibration_dataset=Dataset.from_dict(dict(encoded)),
        save_directory=target,
    )
    return CrossEncoder(
        str(work),
        backend="openvino",
        device="cpu",
        model_kwargs={"file_name": "openvino_model.xml"},
    )


if __name__ == "__main__":
    main()

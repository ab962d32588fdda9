"""`python -m crossbench.doctor`, and the availability check that it shares with cells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir

from crossbench import doctor
from crossbench.backends.availability import (
    Missing,
    Ready,
    Unavailable,
    availability,
    require,
)
from crossbench.backends.noop import NoopBackend
from crossbench.backends.onnx import OnnxBackend
from crossbench.backends.packed import PackedBackend
from crossbench.backends.pytorch import PyTorchBackend
from crossbench.errors import BackendUnavailable, UnsupportedDevice, UnsupportedQuant
from crossbench.measure.probes import environment
from crossbench.settings.places import conf_dir
from crossbench.settings.schema import register
from crossbench.types import Quant


@pytest.fixture(scope="module")
def choices() -> Iterator[list[doctor.Choice]]:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield doctor.examine([])


def test_it_lists_every_backend_and_precision(choices: list[doctor.Choice]) -> None:
    names = {path.stem for path in (conf_dir() / "backend").glob("*.yaml")}
    assert {choice.name for choice in choices} == names
    assert all(list(choice.found) == list(Quant) for choice in choices)
    found = {choice.name: choice for choice in choices}
    assert found["noop"].found[Quant.INT4] == Ready("none")
    assert isinstance(found["pytorch"].found[Quant.FP32], Ready)
    assert found["mps"].natural is Quant.FP16


def test_the_table_lists_each_missing_thing_once(choices: list[doctor.Choice]) -> None:
    text = doctor.as_text(choices, environment())
    lacks = [
        missing
        for choice in choices
        for found in choice.found.values()
        if isinstance(found, Unavailable)
        for missing in found.lacks
    ]
    assert lacks, "no machine can have both CUDA and an Apple GPU"
    for missing in lacks:
        assert text.count(str(missing)) == 1
    assert "yes*" in text
    assert f"{environment()['cores_usable']} usable cores" in text


def test_json_has_the_same_availability(choices: list[doctor.Choice]) -> None:
    backends = json.loads(doctor.as_json(choices, environment()))["backends"]
    for choice in choices:
        for quant, found in choice.found.items():
            entry = backends[choice.name]["quant"][quant.value]
            assert entry["status"] == type(found).__name__.lower()
            if isinstance(found, Unavailable):
                assert [Missing(**lack) for lack in entry["lacks"]] == list(found.lacks)


def test_the_error_of_a_cell_has_the_text_of_the_doctor(choices: list[doctor.Choice]) -> None:
    for choice in choices:
        for quant, found in choice.found.items():
            if isinstance(found, Unavailable):
                with pytest.raises(BackendUnavailable) as raised:
                    require(choice.name, choice.backend, quant, "auto")
                assert str(raised.value).endswith(str(found))


def test_unsupported_differs_from_unavailable() -> None:
    with pytest.raises(UnsupportedQuant, match=r"int4: .* one of fp32, fp16, bf16, int8"):
        require("pytorch", PyTorchBackend, Quant.INT4, "auto")
    with pytest.raises(UnsupportedDevice, match="fp16 the backend runs on cuda or mps, not on"):
        require("packed", PackedBackend, Quant.FP16, "cpu")
    with pytest.raises(UnsupportedDevice, match="not on device=mps"):
        require("onnx", OnnxBackend, Quant.FP32, "mps")
    with pytest.raises(BackendUnavailable, match="CUDA"):
        require("pytorch", PyTorchBackend, Quant.FP32, "cuda:99")
    assert require("noop", NoopBackend, Quant.INT4, "cuda") == "none"
    assert isinstance(availability(PyTorchBackend, Quant.FP32, "cpu"), Ready)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["device=toaster"], "device=toaster is not a device"),
        (["-m", "device=cpu"], "leave out -m"),
        (["--jsn"], "there is no option --jsn"),
    ],
)
def test_bad_usage_gets_a_clear_message(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "crossbench.doctor", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr

"""Inference loads a model straight onto its device: host memory never holds more than a small part of it."""

import pytest
import torch

from pipelines.cli.config_files import PRESETS, save_config
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine import distributed
from pipelines.inference import load
from pipelines.inference.export import export
from pipelines.inference.load import load_run, load_untrained
from support.live_memory import LiveMemory
from support.runs import write_run
from support.tiny import model_config
from vtok.assembly.build import build_framework, drawn_weights
from vtok.assembly.pretrained import from_pretrained
from vtok.config import ConfigError
from vtok.framework import VTokFramework
from vtok.weights import SafeTensor, shapes_of


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory):
    """A run of a tiny framework whose trained weights are not those it began with, and that framework."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.tiny_models, config.model = False, model_config(tiny_models)
    torch.manual_seed(0)
    framework = build_framework(config.model).eval()
    with torch.no_grad():
        for parameter in framework.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
    return write_run(tmp_path_factory.mktemp("run"), config, framework), framework


def host_bytes_allowed(framework: VTokFramework) -> int:
    """What no checkpoint holds is drawn in host memory; of all else one tensor at a time may be there, twice."""
    drawn = ("visual_head.", "tokeniser.motion_encoder.", "projection.positions.", "decoder.adapter.")
    sizes = {name: 4 * torch.Size(shape).numel() for name, shape in shapes_of(framework).items()}
    return sum(size for name, size in sizes.items() if name.startswith(drawn)) + 2 * max(sizes.values())


def test_a_run_is_read_straight_onto_the_device(trained, monkeypatch):
    """Of ``generate``, ``understand``, ``evaluate`` and ``tokenise``; the meta device stands for a GPU."""
    folder, framework = trained
    monkeypatch.setattr(distributed, "device", lambda: torch.device("meta"))
    with LiveMemory(device="cpu") as host:
        _, loaded, step = load_run(folder)
    assert step == 7 and {p.device.type for p in [*loaded.parameters(), *loaded.buffers()]} == {"meta"}
    total = sum(4 * p.numel() for p in framework.parameters())
    assert host.peak <= host_bytes_allowed(framework) < total / 2, (host.peak, total)
    assert host.peak > 10_000  # else the measurement is at fault


def test_published_weights_are_read_straight_onto_the_device(trained, monkeypatch, tmp_path):
    config = load.config_of(trained[0])
    save_config(config, tmp_path / "config.yaml")
    monkeypatch.setattr(load, "drawn_weights", lambda framework: [])
    monkeypatch.setattr(distributed, "device", lambda: torch.device("meta"))
    with LiveMemory(device="cpu") as host:
        _, loaded, _ = load_untrained(tmp_path / "config.yaml")
    assert {p.device.type for p in loaded.parameters()} == {"meta"}
    assert host.peak <= host_bytes_allowed(trained[1])


def test_random_parts_are_refused_unless_the_untrained_model_is_wanted(trained, monkeypatch, tmp_path, capsys):
    save_config(load.config_of(trained[0]), tmp_path / "config.yaml")
    monkeypatch.setattr(load.models, "load_on_device", lambda config, folder: trained[1])
    assert drawn_weights(trained[1])
    with pytest.raises(ConfigError, match="has random weights: train the model first"):
        load_untrained(tmp_path / "config.yaml")
    assert load_untrained(tmp_path / "config.yaml", drawn=True)[1:] == (trained[1], 0)
    assert "more have random weights" in capsys.readouterr().err


def test_what_is_loaded_is_what_was_trained(trained):
    folder, framework = trained
    loaded = load_run(folder)[1]
    assert not loaded.training
    for (name, ours), (_, theirs) in zip(loaded.state_dict().items(), framework.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def test_an_export_reads_no_frozen_part(trained, tmp_path, monkeypatch):
    """They are named in the folder and not copied, and are most of a model."""
    folder, framework = trained
    read, pieces = [], SafeTensor.pieces
    monkeypatch.setattr(SafeTensor, "pieces", lambda tensor, *at: read.append(tensor.file) or pieces(tensor, *at))
    assert export(folder, tmp_path / "exported", dtype="fp32") == 7
    files = {path.parts[-2] for path in read}
    assert "llava" in files and not files & {"clip", "transformer", "vae", "text_encoder_2"}, files
    opened = from_pretrained(tmp_path / "exported")
    for (name, ours), (_, theirs) in zip(opened.state_dict().items(), framework.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name

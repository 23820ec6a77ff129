"""Weights from the hub: however many ranks a machine has, one of them asks; here of a stand-in that counts."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError

from pipelines.config import RunConfig, TrainConfig
from pipelines.engine import hub
from pipelines.engine.models import load_framework
from pipelines.engine.weights import frozen_hashes
from support.tiny import model_config
from vtok.config import ConfigError
from vtok.rows import text
from vtok.weights import location

NAME = "someone/tiny"


@pytest.fixture
def asked(tiny_models, tmp_path, monkeypatch):
    """The files that are asked for of a hub that has the tiny models, one repository each; offline nobody asks."""
    calls = []

    def find(repository, name, subfolder=None, revision=None):
        if not constants.HF_HUB_OFFLINE:
            calls.append(f"{repository}/{subfolder or ''}/{name}")
        path = tiny_models / Path(repository).name / (subfolder or "") / name
        if not path.is_file():
            raise EntryNotFoundError(name)
        return path

    def local(kind, method, repository, **options):
        if not constants.HF_HUB_OFFLINE:
            calls.append(f"{repository} for {kind.__name__}")
        return method(str(tiny_models / Path(repository).name), **options)

    monkeypatch.setattr(location, "hf_hub_download", find)
    tokenizer = transformers.AutoTokenizer
    monkeypatch.setattr(tokenizer, "from_pretrained", partial(local, tokenizer, tokenizer.from_pretrained))
    processor = text.ProcessorMixin
    monkeypatch.setattr(processor, "get_processor_dict", partial(local, processor, processor.get_processor_dict))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    return calls


@pytest.fixture
def config(tiny_models):
    model = model_config(tiny_models)
    for part in (model.mllm, model.tokeniser, model.decoder):
        part.weights = f"someone/{Path(part.weights).name}"
    return RunConfig(TrainConfig(max_steps=1, precision="fp32"), model=model)


def test_only_the_first_of_a_machine_s_ranks_asks_the_hub(asked, config, tmp_path, monkeypatch):
    alone = load_framework(config, tmp_path)
    files = sorted(asked)
    assert len(files) > 10
    monkeypatch.setenv("WORLD_SIZE", "64")
    asked.clear()
    for rank in range(8):
        monkeypatch.setenv("RANK", str(rank))
        framework = load_framework(config, tmp_path)
        hashes = frozen_hashes(framework)
        assert set(asked) == set(files) and len(asked) < 2 * len(files), rank  # all of the first rank
    assert not constants.HF_HUB_OFFLINE  # shards may be read from the hub, too
    assert hashes == frozen_hashes(alone)
    for (name, ours), (_, theirs) in zip(framework.state_dict().items(), alone.state_dict().items(), strict=True):
        assert ours.equal(theirs), name  # fetching takes nothing from the random draws


def test_a_new_launch_asks_again_and_a_failure_is_every_rank_s(asked, config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    load_framework(config, tmp_path)
    asked.clear()
    monkeypatch.setattr(os, "getppid", lambda: 1)  # another launcher
    load_framework(config, tmp_path)
    assert asked
    config.model.tokeniser.weights = "someone/else"
    for _ in range(2):
        with pytest.raises(ConfigError, match="someone/else"):
            load_framework(config, tmp_path)


def test_ranks_that_start_together_wait_for_the_first(tmp_path):
    """Real processes; the work notes itself in a file."""
    log, children = tmp_path / "log", []
    for _ in range(6):
        if (child := os.fork()) == 0:
            done = hub.once(tmp_path / "lock", "key", lambda: log.open("a").write("x" * 5000))
            os._exit(0 if done and log.stat().st_size == 5000 else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    assert log.stat().st_size == 5000


def test_a_cache_that_cannot_be_written_leaves_the_hub_to_each(tmp_path):
    assert not hub.once(tmp_path / "no such folder" / "lock", "key", lambda: pytest.fail("worked"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_so_does_a_file_system_without_locks(number, tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(hub.fcntl, "flock", refuse)
    assert not hub.once(tmp_path / "lock", "key", lambda: pytest.fail("worked"))


def test_so_does_a_rank_without_a_parent(asked, config, tmp_path, monkeypatch):
    """As the first process of a container."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(os, "getppid", lambda: 0)
    with hub.asked_once(config.model):
        assert not constants.HF_HUB_OFFLINE
    assert not asked and not list(tmp_path.glob("*.lock"))

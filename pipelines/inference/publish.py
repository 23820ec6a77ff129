"""Publishes an export on the hub, with a model card."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pipelines.cli.steps import run_of
from pipelines.engine.saving.checkpoint import read_state
from pipelines.engine.saving.choosing import located
from pipelines.inference.card import data_lines, figures_of, model_card, parts_of
from pipelines.inference.load import config_of
from vtok.config import ConfigError, ModelConfig, require
from vtok.weights import first_line

CARD = "README.md"


def require_publishable(checkpoint: Path, name: str, merge: bool) -> None:
    """Checks that an export of a run can be opened by others.

    Raises:
        ConfigError: ``name`` is no hub id, or a part that the export names lies in a folder of this machine.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push {name}: {first_line(error)}") from error
    require("/" in name, f"--push takes USER/NAME, not {name}")
    model = config_of(run_of(checkpoint)).model
    require_named_by_id(model, held=merge or model.mllm.lora is None)


def require_named_by_id(model: ModelConfig, held: bool) -> None:
    """Raises ConfigError if a part that an export names lies in a folder of this machine, where others do not find it.

    Args:
        model: The settings.
        held: Whether the export holds the whole language model.
    """
    named = {part: weights for part, weights in parts_of(model).items() if part != "language model" or not held}
    for part, weights in named.items():
        require(
            not Path(weights).expanduser().exists() and not weights.startswith(("/", "models/")),
            f"--push: the {part} lies in {weights}, where others do not find it: train with its hub id",
        )


def publish(checkpoint: Path, folder: Path, name: str, ema: bool, private: bool) -> str:
    """Writes the model card into an export and uploads the folder.

    Args:
        checkpoint: The run or checkpoint that it is an export of.
        folder: The export.
        name: Hub id of the repository, which is made if there is none.
        ema: Whether its weights are the average of the run's.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: The hub does not take it.
    """
    run, found = located(checkpoint)
    config, state = config_of(run), read_state(found)
    card = model_card(name, config, state, ema, figures_of(run, state.step), data_lines(config, run, state))
    (folder / CARD).write_text(card)
    api = HfApi()
    try:
        repository = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Step {state.step}")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--push {name}: the hub does not take it ({first_line(error)}); the export is whole, and "
            f"`hf upload {name} {folder}` pushes it"
        ) from error
    return str(repository)

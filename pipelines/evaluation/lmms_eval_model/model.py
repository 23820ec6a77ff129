"""The model ``vtok`` of lmms-eval (its ``lmms_eval/api/model.py``, class ``lmms``, "simple" form)."""

from collections.abc import Sequence
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms

from pipelines.cli.errors import user_errors
from pipelines.engine import distributed
from pipelines.evaluation.lmms_eval_model.asker import Asker
from pipelines.inference.load import load_run, load_untrained
from vtok.config import ConfigError, require

REPLY_TOKENS = 128  # the longest reply to a task that names none
PROGRAM = "vtok"


def told(method):
    """Ends lmms-eval with one line and exit code 2 at errors that the user can mend."""

    @wraps(method)
    def telling(*arguments, **settings):
        with user_errors(PROGRAM):
            return method(*arguments, **settings)

    return telling


class VTok(lmms):
    """Answers lmms-eval's requests: ``--model vtok --model_args checkpoint=OUT`` or ``config=X.yaml``.

    Args:
        checkpoint: A run, a checkpoint or an export: see :func:`load_run`.
        config: YAML of a model whose published weights are taken as they are.
        ema: Whether to use the average of a checkpoint's weights.
        max_frames: Evenly spaced frames of a longer video.
        batch_size: Only 1. Ranks share the questions: start lmms-eval with ``accelerate launch``.
        max_batch_size, device: Only ``None``. lmms-eval passes them on.
        settings: With ``config``, settings in which to differ from the YAML, such as
            ``model.tokeniser.strategy=training_free``.

    Raises:
        SystemExit: The user can mend something. A line on stderr says what.
    """

    @told
    def __init__(
        self, checkpoint: str | None = None, config: str | None = None, ema: bool = False, max_frames: int = 512,
        batch_size: int | str = 1, max_batch_size: int | None = None, device: str | None = None, **settings: Any,
    ):  # fmt: skip
        super().__init__()
        require((checkpoint is None) != (config is None), "--model_args takes checkpoint=… or config=…, one of them")
        require(config is not None or not settings, f"--model_args: {', '.join(settings)} needs config=…")
        require(checkpoint is not None or not ema, "--model_args: ema needs checkpoint=…")
        require(str(batch_size) == "1" and max_batch_size is None, "vtok asks one question after another: batch_size 1")
        require(device is None, "leave out --device: each rank takes its own, and CUDA_VISIBLE_DEVICES chooses")
        require(max_frames >= 2, f"--model_args: max_frames must be at least 2, not {max_frames}")
        run = load_run(Path(checkpoint), ema) if checkpoint else load_untrained(
            Path(str(config)), drawn=True, changes=[f"--{key}={value}" for key, value in settings.items()]
        )  # fmt: skip
        self.asker = Asker(run, max_frames)

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts the tensors that it gathers from all ranks."""
        return distributed.device()

    @told
    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Returns the reply to each request ``(context, settings, doc_to_visual, doc_id, task, split)``."""
        replies = []
        for request in requests:
            context, settings, *document = request.args
            require(
                not settings.get("do_sample") and settings.get("num_beams") in (None, 1),
                f"the task {document[2]} samples or searches, and vtok answers greedily: "
                "--gen_kwargs do_sample=False,num_beams=1",
            )
            tokens = settings.get("max_new_tokens", REPLY_TOKENS)
            until = settings.get("until") or []
            ends = [until] if isinstance(until, str) else until
            replies.append(self.asker.reply(self.video(*document), context, tokens, ends))
            self.cache_hook.add_partial("generate_until", (context, settings), replies[-1])
        return replies

    @told
    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Returns, of each request ``(context, continuation, doc_to_visual, doc_id, task, split)``, two things.

        The first is the *loss* of the continuation per token, as the harness's own models return it: its
        ``ConfigurableTask.process_results`` takes the option with the smallest. The second is whether the model would
        write this continuation. They are wrapped because lmms-eval 0.7 turns whatever else it does not know into text
        (``unwrap_generation_output``), pairs of numbers too.
        """
        found = []
        for _, group in groupby(requests, key=lambda request: (request.args[0], *request.args[3:])):
            asked = [request.args for request in group]
            context, _, *document = asked[0]
            video, answers = self.video(*document), [self.text(args).strip() for args in asked]
            losses = self.asker.losses(video, context, answers)
            reply = self.asker.reply(video, context, max(map(len, losses)))
            pairs = [(float(loss.mean()), reply == answer) for loss, answer in zip(losses, answers)]
            found += map(GenerationResult, pairs)
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        with user_errors(PROGRAM):
            raise ConfigError("vtok answers one question at a time: leave out tasks of several rounds")

    def text(self, args: tuple) -> str:
        """Returns the continuation of a request. A task without options gives a function of the document instead."""
        _, continuation, _, doc_id, task, split = args
        return str(continuation(self.task_dict[task][split][doc_id]) if callable(continuation) else continuation)

    def video(self, doc_to_visual, doc_id: int, task: str, split: str) -> Path | None:
        """Returns the path of a document's video, or ``None`` if it has none.

        Raises:
            ConfigError: It has several videos, or something else.
        """
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        known = not visuals or (len(visuals) == 1 and isinstance(visuals[0], str))
        require(known, f"the task {task} shows {len(visuals)} pictures or clips at once, and vtok sees one file")
        return Path(visuals[0]) if visuals else None

"""Progress on stderr: a bar on a terminal; elsewhere, such as in a Slurm job's file, a line every 30 s."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Console:
    """Shows a run's progress.

    Args:
        step: The step that the run starts from.
        max_steps: The run's last step.
    """

    def __init__(self, step: int, max_steps: int):
        self.first, self.max_steps = step, max_steps
        self.started = self.told = time.monotonic()
        self.bar = tqdm(
            total=max_steps, initial=step, unit="step", desc="training", dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def step(self, line: dict) -> None:
        """Shows a step's figures."""
        shown = brief(line)
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        step, now = line["step"], time.monotonic()
        ends = step in (self.first + 1, self.max_steps)
        if self.bar.disable and (ends or now - self.told >= SECONDS_BETWEEN_LINES):
            self.told = now
            left = (now - self.started) / (step - self.first) * (self.max_steps - step)
            figures = ", ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"step {step}/{self.max_steps}: {figures}, {tqdm.format_interval(left)} left")

    def validation(self, step: int, figures: dict) -> None:
        shown = {name: f"{name} {value:.3f}" for name, value in figures.items() if name.startswith("loss")}
        losses = ", ".join(text for name, text in shown.items() if "/" not in name)
        by_dataset = "".join(f", {text}" for name, text in shown.items() if name.startswith("loss/"))
        self.say(f"validation after step {step}, {figures['samples']} samples: {losses}{by_dataset}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()


def brief(line: dict) -> dict[str, str]:
    """Returns the few figures of a step that fit on a line."""
    shown = {"loss": "-" if line["loss"] is None else f"{line['loss']:.3f}"}
    rate = "tokens" if "tokens_per_s" in line else "samples"
    shown[f"{rate}/s"] = tqdm.format_sizeof(line[f"{rate}_per_s"])
    if line.get("mfu") is not None:
        shown["mfu"] = f"{line['mfu']:.1%}"
    return shown

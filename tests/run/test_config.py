import json
import os
from pathlib import Path

import pytest

from pipelines.cli.config_files import PRESETS, save_config
from pipelines.cli.parsing import load_config, parse_run_arguments
from pipelines.config import CaptionShares, TrainConfig
from pipelines.engine.batch_plan import BatchPlan, batch_digest, in_global_order, plan_batch
from pipelines.engine.beginning import number_of_steps
from pipelines.engine.loading.loader import order_settings
from pipelines.engine.loading.precomputed import latent_recipe, require_recipe
from pipelines.engine.logs import truncate_log
from pipelines.engine.setup import deepspeed_config, learning_rate
from pipelines.views import views_of
from support.launch import REPO
from vtok.config import ConfigError, DecoderConfig
from vtok.video_decoder import build_vae

PRESET_NAMES = [
    "demo", "tiny", "tiny_qwen2.5-vl", "tiny_video-lavit", "tiny_omnitokenizer", "llava_next_8b_hunyuan",
    "llava_next_8b_wan2.2_t2v_a14b", "llava_next_8b_wan2.2_ti2v_5b", "qwen2.5-vl_7b",
]  # fmt: skip
COMPUTED = {
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "optimizer", "scheduler", "bf16", "fp16",
}  # fmt: skip


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets_load_and_survive_being_written(name, tmp_path):
    config = parse_run_arguments(["--config", str(PRESETS / f"{name}.yaml")]).config
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_the_paper_s_recipe():
    config = parse_run_arguments(["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml")]).config
    assert (config.train.lr, config.train.global_batch_size, config.train.max_steps) == (1e-5, 16, 312_500)
    assert (config.model.loss.under, config.model.loss.vis_lm, config.model.loss.dec) == (1, 1, 1)
    assert (config.model.tokeniser.num_spatial_tokens, config.model.tokeniser.motion_tokens_per_second) == (16, 6)


def test_yaml_first_then_the_command_line(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("train: {max_steps: 3, lr: 1e-3, global_batch_size: 4}\nmodel: {loss: {dec: 0.5}}\n")
    arguments = parse_run_arguments(["--config", str(path), "--train.lr", "2e-4", "--local_rank=1", "--data.workers=3"])
    train = arguments.config.train
    assert (train.max_steps, train.lr, train.global_batch_size) == (3, 2e-4, 4)
    assert arguments.config.model.loss.dec == 0.5 and arguments.config.data.workers == 3
    assert arguments.preset == "x"


@pytest.mark.parametrize(
    "text, message",
    [
        ("train: {max_steps: 3}\nseed: 1\ntrain: {max_steps: 4}\n", "line 3: train is given twice"),
        ("train:\n  max_steps: 3\n  lr: 5e-4\n  lr: 1e-2\n", "line 4: train.lr is given twice"),
        ("train: {max_steps: 3, lr: null}\n", "train.lr is empty"),
        ("train: {max_steps: 3}\ndata:\n", "line 2: data is empty"),
        ("train: {max_steps: 1:30}\n", "train.max_steps is 1:30"),
        ("train: {max_steps: 010}\n", "train.max_steps is 010, which YAML reads as a number of base 8"),
        ("train: {max_steps: 3}\nmodel: &m {loss: *m}\n", "contains itself"),
        ("train: 3\n", "train is 3, but takes settings"),
        ("train: {max_steps: 3}\nmodel: {loss: [1]}\n", r"model.loss is \[1\], but takes settings"),
        ("train: {max_steps: 3.5}\n", "train.max_steps: expected int or null, not 3.5"),
        ("train: {max_steps: 3, precision: fp8}\n", "train.precision: expected 'auto', 'bf16', 'fp32', not fp8"),
        ("train: {max_steps: 3, betas: [1, 1]}\n", "train.betas"),
        ("train: {max_steps: 3, lr: .inf}\n", "train.lr is inf, but must be finite"),
        ("train: {epochs: .inf}\n", "train.epochs is inf, but must be finite"),
        ("train: {max_steps: 3, betas: [0.9, .nan]}\n", "train.betas is nan, but must be finite"),
        ("train: {max_steps: 3}\ndata: {cache_gb: .inf}\n", "data.cache_gb is inf, but must be finite"),
        ("train: {max_steps: 3}\nmodel: {decoder: {fps: .inf}}\n", "model.decoder.fps is inf, but must be finite"),
        ("train: {max_steps: 3}\ndata: {mixture: [{shards: a, weight: .inf}]}\n", "data.mixture.weight is inf, but"),
        ("train: {max_steps: 3}\nstages: [{name: a, train: {epochs: .inf}}]\n", "stages.train.epochs is inf, but"),
        ("train: {max_steps: 3, timeout_minutes: 1.0e+15}\n", "train.timeout_minutes must be positive and at most"),
        ("train: {max_steps: 3}\nmodel: {decoder: {fps: 1.0e+15}}\n", "decoder.fps must be positive and at most 1000"),
        ("train: {max_steps: 3}\ndata: {seconds: 1.0e+15}\n", "data.seconds must be positive and at most"),
        ("train: {max_steps: 3}\nmodel: {mllm: {max_motion_tokens: 0}}\n", "mllm.max_motion_tokens must be at least 1"),
        ("train: {max_steps: 3, weight_decay: -1}\n", "train.weight_decay"),
        ("train: {max_steps: 3}\nseed: 18446744073709551616\n", "seed must lie"),
    ],
)
def test_slips_in_a_yaml_are_refused_with_their_key(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        parse_run_arguments(["--config", str(path)])
    assert "\n" not in str(refused.value)


LAVIT = ["--model.tokeniser.strategy", "video-lavit", "--model.tokeniser.motion_tokens_per_second", "null"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--model.tokeniser.clip_config.hiden_size", "64"], "no setting hiden_size; did you mean hidden_size?"),
        (["--model.tokeniser.clip_config.hidden_size", "x"], "hidden_size is 'x', but must be a whole number"),
        (
            ["--model.tokeniser.clip_config", '{"hidden_size": 65}'],
            "num_attention_heads 16 does not divide hidden_size",
        ),
        (["--model.tokeniser.clip_config.hidden_act", "gelux"], "hidden_act is 'gelux', which is unknown"),
        (["--model.tokeniser.clip_config.layer_norm_eps", "-1"], "layer_norm_eps is -1, but must be a number"),
        (["--model.tokeniser.clip_config.image_size", "8"], "image_size 8 is smaller than patch_size 14"),
        ([*LAVIT, "--model.tokeniser.codec_config.haeds", "2"], "no setting haeds; did you mean heads?"),
        ([*LAVIT, "--model.tokeniser.codec_config.heads", "0"], "heads is 0, but must be a whole number of at least 1"),
        ([*LAVIT, "--model.tokeniser.codec_config.strides", "[[1, 2]]"], "each with three whole numbers"),
        ([*LAVIT, "--model.tokeniser.codec_config.form", "x"], "form is 'x', which is unknown"),
    ],
)
def test_an_architecture_s_settings_are_checked(argv, message):
    with pytest.raises(ConfigError) as refused:
        parse_run_arguments(["--data_root", "D", *argv])
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_architecture_s_settings_survive_being_written(tmp_path):
    lavit = ["--data_root", "D", *LAVIT]
    for argv in (
        ["--model.tokeniser.clip_config.hidden_size", "64", "--model.tokeniser.clip_config.layer_norm_eps", "1e-6"],
        ["--model.tokeniser.codec_config", '{"form": "budget", "strides": [[2, 2, 3], [3, 5, 4]]}'],
        ["--model.tokeniser.codec_config.form", "published", "--model.tokeniser.codec_config.heads", "4"],
    ):
        config = parse_run_arguments([*lavit, *argv]).config
        save_config(config, tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config
        parse_run_arguments(["--config", str(tmp_path / "config.yaml"), *argv])


PARTS = '{"g_phi": 1e-3}'


@pytest.mark.parametrize(
    "text, argv",
    [
        ("train: {max_steps: 3}", ["--train.parts", PARTS, "--train.lr", "0.5"]),
        ("train: {max_steps: 3}", ["--train.parts.g_phi=1e-3", "--lr=0.5"]),
        ("train: {max_steps: 3, parts: {g_phi: 1e-3}}", ["--train.lr", "0.5"]),
        ("train: {max_steps: 3, parts: {g_phi: 1e-3}, lr: 0.5}", []),
        ("train: {max_steps: 3, parts: {g_phi: 1e-3}}\nstages: [{name: a}]", ["--train.lr", "0.5"]),
    ],
)
def test_a_rate_that_parts_make_useless_is_refused(tmp_path, text, argv):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="train.lr has no effect beside train.parts"):
        parse_run_arguments(["--config", str(path), *argv])


@pytest.mark.parametrize(
    "text, argv",
    [
        ("train: {max_steps: 3, lr: 0.5}", ["--train.parts", PARTS]),  # the command line wins
        ("train: {max_steps: 3, lr: 0.5, parts: {g_phi: 1e-3}}", ["--train.parts", "null"]),
        ("train: {max_steps: 3, lr: 0.5, parts: {g_phi: 1e-3}}\nstages: [{name: a, train: {parts: null}}]", []),
    ],
)
def test_a_rate_that_has_an_effect_is_taken(tmp_path, text, argv):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    config = parse_run_arguments(["--config", str(path), *argv]).config
    save_config(config, tmp_path / "config.yaml")
    assert config.train.lr == 0.5 and load_config(tmp_path / "config.yaml") == config


def test_every_configuration_of_a_command_line_is_checked(tmp_path):
    """A later one wins; a pipe cannot be read a second time."""
    for name, text in (("a", "train: {max_steps: 3}"), ("b", "seed: 7"), ("c", "seed: 7\nseed: 8"), ("d", "sed: 7")):
        (tmp_path / f"{name}.yaml").write_text(text)
    own = ["--config", str(tmp_path / "a.yaml")]
    assert parse_run_arguments([*own, f"--config={tmp_path / 'b.yaml'}"]).config.seed == 7
    for name, message in (("c", "seed is given twice"), ("d", "unknown key sed; did you mean seed")):
        with pytest.raises(ConfigError, match=message):
            parse_run_arguments([*own, "--config", str(tmp_path / f"{name}.yaml")])
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="pipe.yaml is no file: write it to one"):
        parse_run_arguments(["--config", str(tmp_path / "pipe.yaml")])


def test_null_is_a_value_where_it_may_be_one(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("train: {max_steps: 3, ema_decay: null}\ndemo: null\ndata: {shards: ~/x, root: null}\n")
    arguments = parse_run_arguments(["--config", str(path), "--output=~/run"])
    assert arguments.config.train.ema_decay is None and arguments.config.demo is None
    assert arguments.config.data.shards == str(Path.home() / "x") and arguments.output == Path.home() / "run"


def test_both_lengths_on_a_command_line_are_refused():
    with pytest.raises(ConfigError, match="only one of --train.max_steps and --train.epochs"):
        parse_run_arguments(["--data_root", "D", "--train.max_steps", "3", "--epochs", "2"])


@pytest.mark.parametrize(
    "habit, ours", [("--deepspeed", "--ds_config"), ("--resume_from_checkpoint", "--resume auto"),
                    ("--output-dir", "--output"), ("--learning_rate", "--train.lr")]
)  # fmt: skip
def test_the_habits_of_other_trainers_are_known(habit, ours):
    with pytest.raises(ConfigError, match=f"here it is {ours}"):
        parse_run_arguments(["--data_root", "D", habit, "x"])


def test_the_short_form():
    argv = "--data_root D --backbone vgg19 --token_dim 512 --lr 2e-5 --batch_size 8 --epochs 10".split()
    arguments = parse_run_arguments(argv)
    config = arguments.config
    assert arguments.preset == "tiny" and config.demo is None and config.data.root == "D"
    assert (config.model.tokeniser.backbone, config.model.tokeniser.token_dim) == ("vgg19", 512)
    assert (config.train.lr, config.train.global_batch_size, config.train.epochs) == (2e-5, 8, 10)
    assert config.train.max_steps is None


def test_a_mixture_survives_being_written(tmp_path):
    special = "name: c, prompts: [What?], captions: {long: 0.7, empty: 0.3}, losses: [under], validation: v"
    argv = ["--data.mixture", f"[{{shards: a/train, weight: 2}}, {{shards: 's3://b/c', weight: 1, {special}}}]"]
    arguments = parse_run_arguments(argv)
    assert arguments.preset == "tiny"
    first, second = arguments.config.data.mixture
    assert (first.shards, first.weight, first.title, first.captions) == ("a/train", 2.0, "a", None)
    assert (second.title, second.prompts, second.losses) == ("c", ["What?"], ["under"])
    assert second.captions == CaptionShares(long=0.7, empty=0.3)
    save_config(arguments.config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == arguments.config


def test_without_a_config_and_without_data_it_is_the_demo():
    arguments = parse_run_arguments(["--ds_config", "x.json"])
    assert arguments.preset == "demo" and arguments.config.demo is not None


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--train.max_step", "3"], "did you mean --train.max_steps"),
        (["--modle.loss.dec", "3"], "did you mean --model.loss.dec"),
        (["--train.lr", "fast"], "train.lr"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--model.loss.dec", "-1"], "must not be negative"),
        (["--model.decoder.height", "100"], "multiples of 16"),
        (["--model.decoder.loss_height", "64"], "set both decoder.loss_height and decoder.loss_width"),
        (["--model.decoder.loss_height", "64", "--model.decoder.loss_width", "40"], "multiples of 16, not 64x40"),
        (["--model.tokeniser.motion_stride", "3"], "only one of"),
        (["--data.workers", "-1"], "data.workers"),
        (["--data.group_by_length", "30"], "not a multiple of train.global_batch_size 8: try 32"),
        (["--data.cache_gb", "0"], "data.cache_gb"),
        (["--data.mixture", "[]"], "data.mixture is empty"),
        (["--data.mixture", "[{shards: a, weight: 2}, {shards: b}]"], "a weight to all datasets of data.mixture"),
        (["--data.mixture", "[{shards: a, weight: -2}]"], "must be positive"),
        (["--data.mixture", "[{shards: x/a/train}, {shards: y/a}]"], "two datasets are called a: give each a name"),
        (["--data.mixture", "[{shards: a, losses: []}]"], "a counts in no loss"),
        (["--data.mixture", "[{shards: a, losses: [all]}]"], "losses"),
        (["--data.mixture", "[{shards: a, prompts: ['']}]"], "the prompts of a are empty"),
        (["--data.mixture", "[{shards: a, captions: {empty: 1}}]"], "one beside empty is positive"),
        (["--data.mixture", "[{shards: a, captions: {longest: 1}}]"], "longest"),
    ],
)
def test_errors_are_one_line_that_names_the_key(argv, message):
    with pytest.raises(ConfigError) as error:
        parse_run_arguments(argv)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_yaml_errors(tmp_path):
    path = tmp_path / "x.yaml"
    for text, message in [
        ("train: {max_steps: 1, lrr: 2}", "did you mean train.lr?"),
        ("- 1", "should hold sections"),
        ("train: {", "not valid YAML"),
        ("train: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message.replace("?", "\\?")):
            parse_run_arguments(["--config", str(path)])


@pytest.mark.parametrize(
    "global_batch, largest, ranks, plan",
    [(16, 1, 1, (1, 16)), (16, 4, 2, (4, 2)), (16, 4, 8, (2, 1)), (16, 3, 4, (2, 2)), (12, 8, 2, (6, 1))],
)
def test_batch_plan(global_batch, largest, ranks, plan):
    assert plan_batch(global_batch, largest, ranks) == BatchPlan(global_batch, ranks, *plan)


def test_ranks_must_divide_the_global_batch():
    with pytest.raises(ConfigError, match="16 cannot be divided among 3 ranks: use 2 ranks or a global batch of 18"):
        plan_batch(16, 1, 3)


def test_ranks_that_share_samples_count_once():
    plan = plan_batch(16, 2, 32, sequence_parallel=4)
    assert plan == BatchPlan(16, 32, 2, 1, 4) and plan.data_ranks == 8
    assert plan.one_of_each_group(range(32)) == range(0, 32, 4)
    with pytest.raises(ConfigError, match="among 12 groups of 4 ranks: use 32 ranks or a global batch of 24"):
        plan_batch(16, 1, 48, sequence_parallel=4)
    with pytest.raises(ConfigError, match="sequence_parallel 4 does not divide the number of ranks, 6: start"):
        plan_batch(16, 1, 6, sequence_parallel=4)
    with pytest.raises(ConfigError, match="mllm.kind qwen2.5-vl has no decoder: leave it out"):
        parse_run_arguments(["--config", str(PRESETS / "qwen2.5-vl_7b.yaml"), "--train.sequence_parallel", "2"])


def test_deepspeed_counts_the_samples_of_all_ranks():
    plan = plan_batch(16, 1, 16, sequence_parallel=4)
    config = deepspeed_config(REPO / "deepspeed_configs/zero3.json", TrainConfig(max_steps=1), plan)
    assert (config["train_batch_size"], config["gradient_accumulation_steps"]) == (64, 4)


def test_deepspeed_json_is_completed_and_must_not_disagree(tmp_path):
    train = TrainConfig(max_steps=1, max_grad_norm=0.5)
    plan = plan_batch(16, 2, 4)
    config = deepspeed_config(REPO / "deepspeed_configs/zero3.json", train, plan)
    assert config["train_batch_size"] == 16 and config["gradient_accumulation_steps"] == 2
    assert config["gradient_clipping"] == 0.5 and config["zero_optimization"]["stage"] == 3
    path = tmp_path / "ds.json"
    for text, message in [
        ('{"train_batch_size": 32}', "train_batch_size is 32, but this run needs 16"),
        ('{"gradient_clipping": 1.0}', "gradient_clipping"),
        ('{"optimizer": {}}', "optimizer"),
        ("{", "not valid JSON"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            deepspeed_config(path, train, plan)
    path.write_text('{"train_batch_size": "auto", "zero_optimization": {"stage": 3}}')
    assert deepspeed_config(path, train, plan)["train_batch_size"] == 16
    with pytest.raises(ConfigError, match="No such file"):
        deepspeed_config(tmp_path / "none.json", train, plan)


def test_deepspeed_configs_leave_out_what_the_run_computes():
    for path in (REPO / "deepspeed_configs").glob("*.json"):
        assert not COMPUTED & json.loads(path.read_text()).keys(), path


@pytest.mark.parametrize(
    "step, consumed, batch, last",
    [(0, 0, 2, 12), (6, 12, 2, 12), (6, 12, 4, 9), (5, 10, 4, 9), (12, 24, 2, 12), (6, 24, 2, 6), (9, 36, 4, 9)],
)
def test_epochs_count_samples_also_when_the_batch_changes(step, consumed, batch, last):
    """Two epochs of twelve clips."""
    train = TrainConfig(epochs=2, global_batch_size=batch)
    assert number_of_steps(train, 12, step, consumed) == last


def test_another_order_of_samples_is_told_from_the_plain_one():
    plain, grouped, other = (
        order_settings(parse_run_arguments(["--data.shards", "x", *options]).config)
        for options in (
            (),
            ("--data.group_by_length", "8", "--train.global_batch_size", "4"),
            ("--data.group_by_length", "8", "--train.global_batch_size", "8"),
        )
    )
    assert plain == "" and len({plain, grouped, other}) == 3


def test_learning_rate():
    train = TrainConfig(max_steps=100, lr=1.0, warmup_steps=10, schedule="cosine")
    assert learning_rate(1, train, 100, 1.0) == pytest.approx(0.1) and learning_rate(10, train, 100, 1.0) == 1.0
    assert learning_rate(55, train, 100, 1.0) == pytest.approx(0.55)
    assert learning_rate(100, train, 100, 1.0) == pytest.approx(0.1)
    assert learning_rate(77, TrainConfig(max_steps=100, lr=1.0), 100, 1.0) == 1.0


def test_digest_is_of_the_keys_in_global_order():
    by_rank = [[["a", "b"], ["e", "f"]], [["c", "d"], ["g", "h"]]]  # two ranks, two accumulation steps
    assert in_global_order(by_rank) == list("abcdefgh")
    assert batch_digest(["a", "b"]) != batch_digest(["b", "a"]) != batch_digest(["ab"])


def test_log_lines_behind_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    truncate_log(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_l_dec_may_see_a_shorter_and_smaller_clip_than_is_generated():
    size = ("--model.decoder.loss_height=160", "--model.decoder.loss_width=288", "--model.decoder.loss_latent_frames=9")
    config = parse_run_arguments(["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml"), *size]).config
    view = views_of(config, 336)[1]
    assert (view.num_frames, view.height, view.width) == (33, 160, 288)
    assert (config.model.decoder.height, config.model.decoder.width) == (320, 576)


def test_stored_latents_must_be_of_the_clip_that_l_dec_sees(tiny_models):
    paper = ["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml")]
    decoder = DecoderConfig(weights=f"{tiny_models}/hunyuan")
    recipes = [
        json.loads(json.dumps(latent_recipe(parse_run_arguments(paper + more).config, decoder, build_vae(decoder))))
        for more in ([], ["--model.decoder.loss_latent_frames=9"],
                     ["--model.decoder.loss_height=160", "--model.decoder.loss_width=288"])
    ]  # fmt: skip
    require_recipe("shards", "latents", recipes[0], recipes[0])
    for recipe, name in zip(recipes[1:], ("loss_latent_frames None, this run has 9", r"loss_size \[320, 576\]")):
        with pytest.raises(ConfigError, match=name):
            require_recipe("shards", "latents", recipes[0], recipe)

"""Many prompts and many videos: shared out among ranks, resumed, named as VBench wants; the notebook's pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from data_tools.shapes import render_clips
from data_tools.video.decode import validate
from data_tools.video.encode import encode_mp4
from data_tools.video.views import View, make_views
from pipelines import generate, tokenise, understand
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.cli.steps import folder_of
from pipelines.inference import generate as inference_generate
from pipelines.inference import tokenise as inference_tokenise
from pipelines.inference import understand as inference_understand
from pipelines.inference.load import weights_of
from pipelines.inference.shares import NOTE, read_prompts
from support.reference import clip_pixels
from support.tiny import model_config
from vtok import understanding
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import save_pretrained
from vtok.config import ConfigError
from vtok.crops import centre_part, centre_square
from vtok.pipeline import VTokPipeline


@pytest.fixture(scope="module")
def run(tiny_models):
    """What ``load_run`` gives of a run of the tiny preset."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml")]).config
    config.model = model_config(tiny_models)
    torch.manual_seed(0)
    return config, build_framework(config.model).eval(), 7


@pytest.fixture
def loaded(run, monkeypatch):
    """``load_run`` replaced; the list of how often it was asked for."""
    calls = []
    for command in (inference_generate, inference_understand):
        monkeypatch.setattr(command, "load_run", lambda folder, ema=False: calls.append(folder) or run)
        monkeypatch.setattr(command, "weights_of", Path)
    return calls


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 3, seed=3)
    return folder


def as_rank(monkeypatch, rank, ranks, srun=False):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS") if srun else ("RANK", "WORLD_SIZE")
    for name, value in zip((*names, "SLURM_LOCALID"), (rank, ranks, rank)):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("srun", [False, True])
def test_prompts_are_shared_out_and_named_for_vbench(loaded, tmp_path, monkeypatch, srun):
    """Two ranks make each video once; a third start makes only what was deleted, and just as it was."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A red circle, moving.\n\nA blue square\n")
    folder = tmp_path / "videos"
    command = ["--checkpoint", "run", "--prompts", str(prompts), "--output", str(folder), "--samples", "2",
               "--layout", "vbench", "--seconds", "0.5", "--fps", "8", "--steps", "1",
               "--local_rank=0"]  # fmt: skip
    made = []
    for rank in (0, 1):
        as_rank(monkeypatch, rank, 2, srun)
        generate.main(command)
        made.append({path.name for path in folder.iterdir()})
    names = {f"{prompt}-{i}.mp4" for prompt in ("A red circle, moving.", "A blue square") for i in (0, 1)}
    assert len(made[0]) == 2 and made[1] == names
    assert (tmp_path / "videos.asked.json").exists()  # beside the folder, which VBench lists
    contents = {name: (folder / name).read_bytes() for name in names}
    assert len(set(contents.values())) == 4 and validate(folder / "A blue square-1.mp4").frames == 4

    as_rank(monkeypatch, 0, 1)
    gone = folder / "A blue square-0.mp4"
    gone.unlink()
    kept = (folder / "A blue square-1.mp4").stat().st_mtime_ns
    generate.main(command)
    assert gone.read_bytes() == contents[gone.name]
    assert (folder / "A blue square-1.mp4").stat().st_mtime_ns == kept
    before = len(loaded)
    generate.main(command)
    assert len(loaded) == before  # nothing to do: nothing is loaded


def test_numbered_prompts_of_a_csv(loaded, tmp_path):
    (tmp_path / "p.csv").write_text('id,prompt\n1,"A circle, red"\n2,up/down\n')
    command = ["--checkpoint", "run", "--prompts", str(tmp_path / "p.csv"), "--output", str(tmp_path / "o")]
    generate.main([*command, "--seconds", "0.25", "--fps", "8", "--steps", "1"])
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["000000-0.mp4", "000001-0.mp4", NOTE]


@pytest.mark.parametrize(
    "name, text, encoding",
    [
        ("p.csv", 'id;prompt\n1;A circle, red\n2; "a""b"\n', "utf-8-sig"),
        ("p.TSV", 'id\tprompt\n1\tA circle, red\n2\t"a""b"\n', "utf-16"),
        ("p.jsonl", '{"prompt": "A circle, red"}\n{"prompt": "a\\"b", "id": NaN}\n', "utf-8"),
    ],
)
def test_prompts_are_read_from_tables_as_captions_are(tmp_path, name, text, encoding):
    (tmp_path / name).write_text(text, encoding=encoding)
    assert read_prompts(tmp_path / name) == ["A circle, red", 'a"b']


def test_a_prompt_may_hold_what_other_programs_take_for_a_line_s_end(tmp_path):
    """One prompt once became two, and every later video another row's."""
    prompts = ["A circle\u2028moves", "A\x85square", "A\x0bstar\x0c\x1e"]
    (tmp_path / "p.txt").write_bytes("\ufeff{}\r\n\n{}\r{}\n".format(*prompts).encode())
    assert read_prompts(tmp_path / "p.txt") == [prompt.strip() for prompt in prompts]


def test_a_batch_of_prompts_is_denoised_together(loaded, tmp_path, monkeypatch):
    """Three videos, two at a time; each with the seed that it has alone."""
    (tmp_path / "p.txt").write_text("A circle, red\nA blue square\nA green star moves up\n")
    command = ["--checkpoint", "run", "--prompts", str(tmp_path / "p.txt"), "--seconds", "0.5", "--fps", "8",
               "--steps", "1", "--seed", "5"]  # fmt: skip
    batches, batch = [], inference_generate.generate_batch

    def remembered(framework, prompts, *arguments):
        batches.append((prompts, videos := batch(framework, prompts, *arguments)))
        return videos

    monkeypatch.setattr(inference_generate, "generate_batch", remembered)
    generate.main([*command, "--output", str(tmp_path / "alone")])
    generate.main([*command, "--output", str(tmp_path / "together"), "--batch_size", "2"])
    assert [len(prompts) for prompts, _ in batches] == [1, 1, 1, 2, 1]
    alone, together = (torch.cat([videos for _, videos in part]).float() for part in (batches[:3], batches[3:]))
    assert (alone - together).abs().max() <= 1 and (alone[0] - alone[1]).abs().max() > 8
    assert len(list((tmp_path / "together").glob("*.mp4"))) == 3


def test_videos_of_a_csv_are_asked_about_once_and_a_bad_one_costs_only_itself(loaded, clips, tmp_path, monkeypatch):
    table = clips / "questions.csv"
    table.write_text("path,question\n000.mp4,What moves?\nnone.mp4,Who?\n001.mp4,\n")
    command = ["--checkpoint", "run", "--videos", str(table), "--output", str(tmp_path), "--max_new_tokens", "3"]
    command.append("--local_rank=0")  # as the deepspeed launcher starts it
    for rank in (0, 1):
        as_rank(monkeypatch, rank, 2)
        understand.main(command)
    answers = [json.loads((tmp_path / f"00000{row}.json").read_text()) for row in range(3)]
    assert [answer["question"] for answer in answers] == ["What moves?", "Who?", "Describe this video."]
    assert answers[0]["video"] == "000.mp4" and answers[0]["answer"] is not None and answers[0]["step"] == 7
    assert "no such video" in answers[1]["error"] and "answer" not in answers[1]
    before = len(loaded)
    understand.main(command)
    assert len(loaded) == before


def refused(capsys, main, *command):
    """The one line with which a command refuses."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(list(map(str, command)))
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_videos_of_other_prompts_or_settings_are_not_taken_for_those_asked_for(loaded, tmp_path, capsys):
    """Only the files' names counted once: an edited list of prompts kept the videos of the former one."""
    prompts, folder = tmp_path / "p.txt", tmp_path / "o"
    prompts.write_text("A circle\nA square\n")
    command = ("--checkpoint", "run", "--prompts", prompts, "--output", folder, "--seconds", "0.25", "--fps", "8",
               "--steps", "1")  # fmt: skip
    generate.main(list(map(str, command)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for option, value, name in (
        ("--steps", 2, "steps"),
        ("--seed", 1, "seed"),
        ("--checkpoint", "other", "weights"),
        ("--temperature", 0.5, "temperature"),
        ("--visual_guidance", 2, "guidance"),
    ):
        assert f"was begun with other {name}: choose another --output" in refused(
            capsys, generate.main, *command, option, value
        )
    prompts.write_text("A star\nA circle\nA square\n")
    error = refused(capsys, generate.main, *command)
    assert "outputs of other inputs: 2, the first is 000000-0.mp4" in error and "another --output" in error
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()} and len(loaded) == 1

    prompts.write_text("A circle\nA square\nA star\n")
    generate.main(list(map(str, command)))
    assert f"{folder}: 2 of 3 outputs are there already" in capsys.readouterr().out
    assert (folder / "000002-0.mp4").exists()
    assert json.loads((folder / NOTE).read_text())["inputs"]["000002-0.mp4"] == "A star"
    generate.main([*map(str, command), "--samples", "2"])
    assert "3 of 6 outputs are there already" in capsys.readouterr().out
    prompts.write_text("A circle\n")  # the others stay noted
    generate.main(list(map(str, command)))
    prompts.write_text("A circle\nA hexagon\n")
    assert "outputs of other inputs: 1, the first is 000001-0.mp4" in refused(capsys, generate.main, *command)
    (folder / "000001-0.mp4").unlink()
    generate.main(list(map(str, command)))
    (folder / NOTE).unlink()
    assert "says what they were asked for: choose another --output" in refused(capsys, generate.main, *command)
    (folder / NOTE).write_text("[")
    assert "does not say what was asked for" in refused(capsys, generate.main, *command)


def test_a_start_that_fails_before_its_first_output_binds_nobody(loaded, tmp_path, monkeypatch, capsys):
    (tmp_path / "p.txt").write_text("A circle\n")
    command = ("--checkpoint", "run", "--prompts", tmp_path / "p.txt", "--output", tmp_path / "o", "--seconds", "0.25",
               "--fps", "8", "--steps", "1")  # fmt: skip

    def without_average(folder, ema=False):
        raise ConfigError("it has no average")

    with monkeypatch.context() as failing:
        failing.setattr(inference_generate, "load_run", without_average)
        assert "no average" in refused(capsys, generate.main, *command, "--ema")
    generate.main(list(map(str, command)))


def test_answers_to_other_questions_or_of_other_settings_are_not_taken_for_those_asked_for(
    loaded, clips, tmp_path, capsys
):
    table, folder = clips / "t.csv", tmp_path / "o"
    table.write_text("path,question\n000.mp4,\n001.mp4,What moves?\n")
    command = ("--checkpoint", "run", "--videos", table, "--output", folder, "--max_new_tokens", 3)
    understand.main(list(map(str, command)))
    for option, value, name in (
        ("--checkpoint", "other", "weights"),
        ("--max_new_tokens", 4, "max_new_tokens"),
        ("--end", 1, "end"),
    ):
        assert f"was begun with other {name}: choose" in refused(capsys, understand.main, *command, option, value)
    other = refused(capsys, understand.main, *command, "--question", "Who?")
    assert "outputs of other inputs: 1, the first is 000000.json" in other
    table.write_text("path,question\n002.mp4,\n000.mp4,\n001.mp4,What moves?\n")
    assert "outputs of other inputs: 2" in refused(capsys, understand.main, *command)
    table.write_text("path,question\n000.mp4,\n001.mp4,What moves?\n002.mp4,\n")
    understand.main(list(map(str, command)))
    assert "2 of 3 outputs are there already" in capsys.readouterr().out and (folder / "000002.json").exists()
    understand.main(list(map(str, command)))
    assert "3 of 3 outputs are there already" in capsys.readouterr().out and len(loaded) == 2


def test_the_steps_of_a_run_that_trains_on_are_not_mixed(loaded, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    for step in (100, 200):
        folder_of(run, step).mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (folder_of(run, 100) / "COMPLETE").write_text("{}")
    monkeypatch.setattr(inference_generate, "weights_of", weights_of)
    prompts = tmp_path / "p.txt"
    prompts.write_text("A circle\n")
    command = ("--checkpoint", run, "--prompts", prompts, "--output", tmp_path / "o", "--seconds", "0.25", "--fps",
               "8", "--steps", "1")  # fmt: skip
    generate.main(list(map(str, command)))
    assert loaded == [folder_of(run, 100)]
    (folder_of(run, 200) / "COMPLETE").write_text("{}")
    prompts.write_text("A circle\nA square\n")
    error = refused(capsys, generate.main, *command)
    assert "begun with step 100 of the run, not with step 200: pass --step 100 to go on" in error
    generate.main([*map(str, command), "--step", "100"])
    assert loaded == [folder_of(run, 100)] * 2 and (tmp_path / "o" / "000001-0.mp4").exists()


def test_a_whole_long_video_is_seen_with_several_key_frames(loaded, run, clips, monkeypatch, capsys):
    """Rendered clips last longer than the samples of this run: all of it is looked at, or the part that is named."""
    config, _, _ = run
    seen = []
    record = lambda _, frames, *__, key_frame_every: seen.append((len(frames), key_frame_every)) or ""  # noqa: E731
    monkeypatch.setattr(inference_understand, "understand", record)
    monkeypatch.setattr(config.data, "seconds", 1.0)
    command = ["--checkpoint", "run", "--video", str(clips / "000.mp4"), "--max_new_tokens", "2"]
    whole = int(validate(clips / "000.mp4").duration * 4 + 1e-3) + 1
    for options, expected in (
        ([], (whole, 1.0)),
        (["--key_frame_every", "0.5"], (whole, 0.5)),
        (["--end", "1"], (5, None)),
        (["--start", "0.5", "--end", "1.55"], (5, None)),  # hardly longer
        (["--start", "0.5", "--end", "2.5"], (9, 1.0)),
    ):
        understand.main([*command, *options])
        assert seen.pop() == expected, options
    assert capsys.readouterr().err.count("with a key frame every 1 s") == 2
    with pytest.raises(SystemExit, match="2"):
        understand.main([*command, "--start", "60"])
    assert "nothing of it lies between --start and --end" in capsys.readouterr().err


def test_a_question_about_several_videos_is_answered(loaded, clips, tmp_path, capsys):
    Image.new("RGB", (80, 40), "red").save(tmp_path / "a.png")
    paths = [str(clips / "000.mp4"), str(tmp_path / "a.png")]
    command = ["--checkpoint", "run", "--video", *paths, "--question", "Alike?", "--max_new_tokens", "3", "--json"]
    understand.main(command)
    told = json.loads(capsys.readouterr().out)
    assert told["video"] == paths and isinstance(told["answer"], str)
    with pytest.raises(SystemExit, match="2"):
        understand.main([*command, "--end", "1"])
    assert "for one --video" in capsys.readouterr().err


def test_several_key_frames_give_the_tokens_of_several_videos(run, clips, monkeypatch):
    config, framework, _ = run
    monkeypatch.setattr(config.data, "seconds", 1.0)
    frames, every = inference_understand.Understanding(config, framework).seen(clips / "000.mp4")
    together = understanding.video_embeddings(framework, frames, key_frame_every=every)
    alone = [understanding.video_embeddings(framework, part) for part in frames.split(4)]
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text, arguments, message",
    [
        ("", [], "holds no prompt"),
        ("up/down", ["--layout", "vbench"], "cannot name a file"),
        ("x" * 250, ["--layout", "vbench"], "cannot name a file"),
        ("a", ["--samples", "0"], "--samples"),
        ("a", ["--batch_size", "0"], "--batch_size"),
        (None, [], "cannot read"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_line(loaded, tmp_path, capsys, text, arguments, message):
    if text is not None:
        (tmp_path / "p.txt").write_text(text)
    command = ["--checkpoint", "run", "--prompts", str(tmp_path / "p.txt"), "--output", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="2"):
        generate.main([*command, *arguments])
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not loaded and not (tmp_path / "o").exists()


def test_tables_that_cannot_be_used_are_one_line(loaded, tmp_path, capsys):
    table = tmp_path / "t.csv"
    for text, message in (
        ("file\nx\n", "column path"),
        ('path\n" "\n', "row 1: path is empty"),
        ("path\n", "has no rows"),
    ):
        table.write_text(text)
        with pytest.raises(SystemExit, match="2"):
            understand.main(["--checkpoint", "run", "--videos", str(table), "--output", str(tmp_path / "o")])
        assert message in capsys.readouterr().err


def test_the_notebook_s_pipeline(run, tmp_path):
    """Saved, opened, asked about frames of any size, and made to draw."""
    _, framework, _ = run
    save_pretrained(framework, tmp_path / "model")
    pipeline = VTokPipeline.from_pretrained(tmp_path / "model")
    frames = torch.randint(0, 256, (9, 3, 90, 128), dtype=torch.uint8)
    answer = pipeline.understand(frames, "What is it?", fps=8, max_new_tokens=4)
    own = VTokPipeline(framework)
    assert answer == understanding.understand(own.framework, centre_square(frames, 64), "What is it?", 4, fps=8)
    video = pipeline.generate("A red circle", seconds=0.5, fps=8, steps=1, seed=3)
    assert video.shape == (4, 3, 32, 32) and video.dtype == torch.uint8
    assert torch.equal(video, own.generate("A red circle", 0.5, 8, 1, seed=3))
    with pytest.raises(ConfigError, match="uint8"):
        pipeline.understand(frames.float(), "What?")


@pytest.mark.parametrize("height, width", [(96, 128), (130, 90), (64, 64), (40, 200)])
def test_a_notebook_shows_the_model_what_training_shows_it(height, width):
    """Of a landscape, a portrait, a square and a very wide clip: a square of the decoder's 16 : 9 part."""
    draws = np.random.default_rng(0)
    coarse = torch.from_numpy(draws.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    video = encode_mp4((frame.permute(1, 2, 0).numpy() for frame in smooth), 4, 18)
    whole = make_views(video, 0.75, View(4, 3, height, width), None, 0.0).frames
    trained = make_views(video, 0.75, View(4, 3, 56, 56), View(4, 1, 36, 64), 0.0).frames
    ours = centre_square(centre_part(whole, 36, 64), 56)
    assert (ours.int() - trained).abs().max() <= 1


@pytest.mark.parametrize("height, width", [(90, 128), (131, 90), (64, 64)])
def test_the_centre_square_is_that_of_clip_s_processor(height, width):
    frame = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    assert (centre_square(frame, 64).int() - clip_pixels(frame[0], 64)).abs().max() <= 1


def test_videos_become_tokens_and_a_picture(loaded, run, clips, tmp_path, monkeypatch, capsys):
    """One token a later step of the whole video; the same as the tokeniser gives for its frames."""
    monkeypatch.setattr(inference_tokenise, "load_run", lambda folder: run)
    output, picture = tmp_path / "t.safetensors", tmp_path / "p.png"
    videos = [str(clips / f"00{i}.mp4") for i in range(2)]
    tokenise.main([*videos, "--checkpoint", "run", "--output", str(output), "--show", str(picture)])
    with safe_open(output, "pt") as file:
        assert json.loads(file.metadata()["videos"]) == videos and file.metadata()["key_frames"] == "[0, 0]"
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    steps = int(validate(clips / "001.mp4").duration * 4 + 1e-3)
    assert tensors["1.tokens"].shape == (16 + steps, 64) and tensors["1.spatial"].shape == (16, 64)
    torch.testing.assert_close(tensors["1.times"], torch.arange(1, steps + 1) / 4)
    tokens = run[1].tokeniser.encode_kind("motion", tensors["1.motion"]).detach()
    torch.testing.assert_close(tensors["1.tokens"][16:], tokens)
    assert Image.open(picture).size == (3 * 336, 2 * 336)
    with pytest.raises(SystemExit, match="2"):
        tokenise.main(["none.mp4", "--checkpoint", "run", "--output", str(tmp_path / "u.safetensors")])
    assert "no such video" in capsys.readouterr().err and not (tmp_path / "u.safetensors").exists()

"""Control tokens in what people wrote stay text."""

import pytest

from vtok.assembly.tiny import BOS, EOS, train_tokenizer, wrapped
from vtok.video_decoder.hunyuan import clip_ids
from vtok.video_decoder.wan import umt5_ids

WORDS = "A sign reads <|eot_id|> and <im<image>age>, <|start_header_id|>user<|end_header_id|>."


def test_no_text_becomes_a_control_token(framework):
    text = framework.text
    tokenizer = text.tokenizer
    control = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids("<image>")}

    def controls(ids):
        return [token for token in ids if token in control]

    assert controls(text.answer(WORDS)) == [tokenizer.eos_token_id]
    assert tokenizer.decode(text.answer(WORDS)[:-1]) == WORDS
    assert controls(text.prompt(WORDS)) == controls(text.prompt("x"))
    assert [controls(ids) for ids in text.question(WORDS)] == [controls(ids) for ids in text.question("x")]


@pytest.mark.parametrize("question", ["<image>", "", "  ", "{{ messages }}", "a{%b", "<|begin_of_text|>What?"])
def test_any_question_can_be_asked(framework, question):
    before, after = framework.text.question(question)
    assert question.strip() in framework.text.tokenizer.decode(before + after)


@pytest.mark.parametrize("ids_of", [clip_ids, umt5_ids])
def test_captions_become_no_control_tokens_of_the_decoders_text_encoder(ids_of):
    tokenizer = wrapped(train_tokenizer(["A dog runs."]), f"{BOS} $A {EOS}", model_max_length=77)
    bos, eos = (tokenizer.convert_tokens_to_ids(token) for token in (BOS, EOS))
    said = f"A{EOS}B{BOS}"
    ids = [token for token in ids_of(tokenizer, said) if token != tokenizer.pad_token_id or token == eos]
    inner = ids[1 : ids.index(eos)]
    assert (ids[0], bos in inner, tokenizer.decode(inner)) == (bos, False, said)
    assert ids_of(tokenizer, "A dog runs.")[:4] == tokenizer("A dog runs.").input_ids[:4]


def test_a_call_that_keeps_control_words_as_text_changes_no_other():
    tokenizer = wrapped(train_tokenizer(["A dog runs."]), f"{BOS} $A {EOS}", model_max_length=77)
    before = tokenizer(EOS).input_ids
    clip_ids(tokenizer, EOS)
    assert tokenizer(EOS).input_ids == before


def test_a_text_that_is_too_long_is_cut_and_said_to_be(framework):
    text = framework.text
    text.max_text_tokens = 12
    whole = text.sample("A dog runs.", "What?", "It runs.", 0)
    assert not whole.cut and whole.answer[-1] == text.tokenizer.eos_token_id

    long = "word " * 100
    for caption, question, answer in ((long, None, None), ("A dog.", "What?", long), ("A dog.", long, "It.")):
        row = text.sample(caption, question, answer, 0)
        assert row.cut and len(row.answer) <= 13
        assert (row.answer[-1] == text.tokenizer.eos_token_id) == (answer == "It.")  # what was cut does not end there
    assert text.tokenizer.decode(text.sample(long, None, None, 0).answer) == text.shortened(long)
    assert long.startswith(text.shortened(long)) and not text.shortened("é" * 100).endswith("\ufffd")


def test_a_prompt_that_the_decoder_cuts_is_counted(framework):
    text = framework.text
    row = text.sample("word " * 300, "What?", "It.", 0)
    assert row.cut and len(row.prompt) == text.max_prompt_length

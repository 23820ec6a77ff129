"""Control tokens in what people wrote stay text."""

import pytest

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

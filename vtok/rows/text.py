"""Turns the text of a sample's two rows into token ids. It runs in the data workers and makes no tensors.

understanding row:  question with the visual tokens | answer, end token | later turns    (eq. 6; loss on answers)
generation row:     template with the caption | visual tokens                            (eqs. 8 and 10)
"""

import os.path
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from vtok.config import ConfigError, MLLMConfig, ModelConfig
from vtok.mllm import published
from vtok.mllm.base import Placeholder
from vtok.mllm.llava_next import LLAVA_NEXT
from vtok.rows.literal import control_words, literal_ids
from vtok.rows.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE, IMAGE_INSTRUCTIONS
from vtok.video_decoder import caption_tokenizer
from vtok.video_decoder.base import CaptionTokenizer
from vtok.weights import Location
from vtok.weights.shipped import folder_or_id
from vtok.weights.tokenizer import load_tokenizer

QUESTION = "\ue000"  # stands for the question in a filled template; the next characters stand for what follows it

# LLaMA-3's end of a turn. Some of its tokenizers name another end token, which ends documents.
END_OF_TURN = "<|eot_id|>"

# What a chat template, which is a program, can raise on messages of another form or if it is damaged.
TEMPLATE_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, TemplateError)


class RowText(NamedTuple):
    """Token ids of one sample.

    Attributes:
        question: The chat template with the first question. Among the ids stand marks, see :func:`mark`.
        answer: The answer with its end token. Empty if there is no answer.
        prompt: The generation row's template with the caption. Empty if there is no decoder.
        decoder_ids: The caption for the decoder's own text encoder. Empty if there is no decoder.
        predicts, decodes: Whether the generation row counts in L_visLM and in L_dec. Without a caption in neither.
        cut: Whether a text was longer than its limit, and was cut.
        turns: Later turns of the conversation: (the template with the question, the answer with its end token) each.
    """

    question: list[int]
    answer: list[int]
    prompt: list[int]
    decoder_ids: list[int]
    predicts: bool
    decodes: bool
    cut: bool = False
    turns: tuple[tuple[list[int], list[int]], ...] = ()

    @property
    def captioned(self) -> bool:
        """Whether the sample has a generation row: a caption that counts in a loss."""
        return self.predicts or self.decodes

    @property
    def media(self) -> set[int]:
        """The media that the questions show."""
        questions = (self.question, *(question for question, _ in self.turns))
        return {-1 - token for question in questions for token in question if token < 0}


class Place(NamedTuple):
    """The place of a medium, a video or an image, in a conversation about several.

    Attributes:
        turn: The number of the question that it stands in, from 0 on.
        at: The number of characters of the question before it.
    """

    turn: int
    at: int


def mark(medium: int) -> int:
    """Returns what stands among token ids for the visual tokens of a sample's medium 0, 1, ...: -1, -2, ..."""
    return -1 - medium


class TextEncoder:
    """Fills the templates and tokenises them.

    Args:
        tokenizer: The language model's tokenizer, with a chat template and a token that marks visual tokens.
        caption_ids: Turns a caption into token ids of the decoder's own text encoder. ``None`` if there is no decoder.
        max_prompt_tokens: Caption and template tokens that are kept after the crop, as in diffusers' pipeline.
        placeholder: Marks the place of the visual tokens in the chat template.
        system: A message of the system that goes before a question, or ``None``.
        max_text_tokens: Tokens of a training sample's question, and of its caption or answer, at most.

    Attributes:
        turn_ids: LLaMA-3's end of a turn, if the tokenizer has it.
        crop_start: Tokens at the start of the prompt whose states do not go to the decoder.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        caption_ids: CaptionTokenizer | None,
        max_prompt_tokens: int,
        placeholder: Placeholder = LLAVA_NEXT.placeholder,
        system: str | None = None,
        max_text_tokens: int = MLLMConfig.max_text_tokens,
    ):
        self.tokenizer = tokenizer
        self.max_text_tokens = max_text_tokens
        self.caption_ids = caption_ids
        self.placeholder = placeholder
        self.system = system
        self.turn_ids = [tokenizer.convert_tokens_to_ids(END_OF_TURN)] if END_OF_TURN in tokenizer.get_vocab() else []
        self.control = control_words(tokenizer, [placeholder.token])
        # The template's system part is cropped. diffusers' constant (95) fits LLaMA-3's tokenizer only, so we count.
        self.crop_start = len(tokenizer(DECODER_TEMPLATE.split("{}")[0]).input_ids)
        self.max_prompt_length = self.crop_start + max_prompt_tokens

    @classmethod
    def from_pretrained(cls, config: ModelConfig) -> "TextEncoder":
        """Loads the tokenizers from ``mllm.weights`` and, if there is a decoder, ``decoder.weights``.

        Raises:
            ConfigError: A tokenizer cannot be loaded, or the language model's has no end token or no chat template that
                shows a video and a question.
        """
        location = Location("usable tokenizer", "mllm.weights", config.mllm.weights, config.mllm.revision)
        tokenizer = load_tokenizer(location)
        with location.building("processor's files"):
            # The model's template may lie with its processor, while the tokenizer has the bare language model's.
            processor, _ = ProcessorMixin.get_processor_dict(
                folder_or_id(config.mllm.weights), revision=config.mllm.revision
            )
            tokenizer.chat_template = processor.get("chat_template", tokenizer.chat_template)
        if tokenizer.eos_token_id is None:
            raise location.error("it has no end token: set eos_token in its tokenizer_config.json")
        if not tokenizer.chat_template:
            raise location.error(
                "it has no chat template: take a model that was trained to chat, or put its chat_template.jinja there"
            )
        caption_ids = caption_tokenizer(config.decoder) if config.generates else None
        kind = published(config.mllm)
        system = kind.system(tokenizer) if config.tokeniser.strategy == "training_free" else None
        longest = config.mllm.max_text_tokens
        text = cls(tokenizer, caption_ids, config.decoder.max_prompt_tokens, kind.placeholder, system, longest)
        text.chat()  # which raises if the template does not fit
        return text

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer."""
        return list(dict.fromkeys([self.tokenizer.eos_token_id, *self.turn_ids]))

    def question(self, question: str) -> tuple[list[int], list[int]]:
        """Tokenises a question in the model's chat template. Returns the ids before and after the visual tokens.

        Raises:
            ConfigError: The template omits the video or the question, or there is no token for the video.
        """
        token = self.placeholder.token
        ids = self.asked(*self.chat(), question)
        visual = self.tokenizer.convert_tokens_to_ids(token)
        if visual not in ids:
            raise ConfigError(f"the tokenizer of mllm.weights has no token {token}: is it of mllm.kind?")
        place = ids.index(visual)
        return ids[:place], ids[place + 1 :]

    def asked(self, head: str, tail: str, question: str, media: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Tokenises a first question between the two sides of a filled template. ``media`` as in :meth:`about`."""
        # Like LLaVA's processor: the template may write the first token itself or leave it to the tokenizer.
        written = head.startswith(self.tokenizer.bos_token or self.placeholder.token)
        return self.about(media, head, question, tail, not written)

    def later(self, question: str, media: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Tokenises a question that follows an answer, whose end token is there already. ``media`` as in `about`."""
        *_, between, tail = self.template(2, visual=False)

        def ids(before: str) -> list[int]:
            return self.about(media, before, question, tail, False)

        ended = ids(between.lstrip())  # some templates write a space before the end token
        return ended[1:] if ended[0] in self.end_ids else ids(between)

    def about(
        self, media: Sequence[tuple[int, int]], before: str, question: str, after: str, add_special_tokens: bool
    ) -> list[int]:
        """Tokenises a question with marks of the media that stand in it.

        Args:
            media: (the medium, the number of characters of the question before it) each, in order.
            before, after: The template around the question.
            question: The question.
            add_special_tokens: Whether the tokenizer adds its own at the beginning.
        """
        question, (left, right) = question.strip(), self.around_medium() if media else ("", "")
        cuts = [0, *(at for _, at in media), len(question)]
        ids: list[int] = []
        for number, (first, end) in enumerate(pairwise(cuts)):
            last = number == len(media)
            sides = right if number else before, question[first:end], after if last else left
            ids += literal_ids(self.tokenizer, self.control, *sides, add_special_tokens and not number)
            ids += [] if last else [mark(media[number][0])]
        return ids

    def around_medium(self) -> tuple[str, str]:
        """Returns what the chat template writes on both sides of a medium's visual tokens.

        Raises:
            ConfigError: With a medium the template differs in more than one place.
        """
        without, shown = (self.template(1, visual)[0] for visual in (False, True))
        same = len(os.path.commonprefix([without, shown]))
        rest = without[same:]
        if not shown.endswith(rest):
            raise ConfigError("the chat template of mllm.weights changes where a medium is added: it takes one only")
        left, right = shown[same : len(shown) - len(rest)].split(self.placeholder.token)
        return left, right

    def chat(self) -> tuple[str, str]:
        """Fills the chat template with a video and a question. Returns the text on both sides of the question.

        Raises:
            ConfigError: The template does not show both the video and the question.
        """
        head, tail = self.template(1, visual=True)
        return head, tail

    def template(self, turns: int, visual: bool) -> list[str]:
        """Fills the chat template with a conversation. Returns the pieces of text around questions and answers.

        The content of a message is a list of typed parts in some published templates (LLaVA's), one string in others
        (LLaMA's).

        Args:
            turns: The number of questions. The last one has no answer yet.
            visual: Whether the first question is about a video.

        Raises:
            ConfigError: Neither form shows a video and all questions and answers, each once.
        """
        for typed in (True, False):
            pieces = self.filled(typed, turns, visual)
            if pieces and (visual or self.filled(typed, 1, visual=True)):
                return pieces
        raise ConfigError(
            f"the chat template of mllm.weights shows {self.placeholder.part} or question neither as parts nor as text"
        )

    def filled(self, typed: bool, turns: int, visual: bool) -> list[str] | None:
        """As :meth:`template`, with messages in one of the two forms; ``None`` if the template does not show them."""
        part, token = self.placeholder
        said = [chr(ord(QUESTION) + number) for number in range(2 * turns - 1)]
        contents = [([{"type": "text", "text": text}] if typed else text) for text in said]
        messages: list[Any] = [
            dict(role=("user", "assistant")[n % 2], content=content) for n, content in enumerate(contents)
        ]
        if visual:
            shown: Any = [{"type": part}, *contents[0]] if typed else f"{token}\n{contents[0]}"
            messages[0]["content"] = shown
        if visual and self.system:
            told: Any = [{"type": "text", "text": self.system}] if typed else self.system
            messages.insert(0, dict(role="system", content=told))
        try:
            chat = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TEMPLATE_ERRORS:  # among others of a template of strings that joins or strips them
            return None
        if not isinstance(chat, str) or chat.count(token) != visual or any(chat.count(text) != 1 for text in said):
            return None
        return re.split("|".join(said), chat)

    def answer(self, answer: str) -> list[int]:
        """Tokenises an answer, with its end token."""
        ids = literal_ids(self.tokenizer, self.control, "", answer, add_special_tokens=False)
        return ids + [self.tokenizer.eos_token_id]

    def prompt(self, caption: str) -> list[int]:
        """Tokenises the decoder's template with a caption, cut to its maximum length."""
        return self.whole_prompt(caption)[: self.max_prompt_length]

    def whole_prompt(self, caption: str) -> list[int]:
        """Tokenises the decoder's template with a caption of any length."""
        head, tail = DECODER_TEMPLATE.split("{}")
        return literal_ids(self.tokenizer, self.control, head, caption, tail)

    def shortened(self, text: str) -> str:
        """Cuts a text after ``max_text_tokens`` tokens. Shorter texts stay as they are."""
        if len(text.encode("utf-8", "surrogatepass")) <= self.max_text_tokens:  # a token has one byte or more
            return text
        ids = literal_ids(self.tokenizer, self.control, "", text, add_special_tokens=False)
        if len(ids) <= self.max_text_tokens:
            return text
        kept = str(self.tokenizer.decode(ids[: self.max_text_tokens]))
        return kept.rstrip("\ufffd")  # the cut may divide a character

    def sample(
        self,
        caption: str | None,
        question: str | None,
        answer: str | None,
        instruction_draw: int,
        turns: Sequence[tuple[str, str]] = (),
        kind: str = "video",
        media: Sequence[Place] = (),
        prompts: Sequence[str] | None = None,
    ) -> RowText:
        """Tokenises both rows of a training sample.

        The understanding row asks the sample's question. Without one it asks for the caption. An answer that was cut
        has no end token, since it does not end there. The generation row keeps the caption's first
        ``decoder.max_prompt_tokens``.

        Args:
            caption, question, answer: The sample's text.
            instruction_draw: A random integer of the sample, which picks the wording that asks for the caption.
            turns: Later questions and answers. Those past ``mllm.max_text_tokens`` in all are left out.
            kind: ``video``, ``image``, ``text`` or ``several``. A video or an image stands where the template has it.
            media: For ``several``: the place of each. Those of a turn that is left out are left out.
            prompts: Wordings that ask for a caption. By default those of :mod:`vtok.rows.prompts`.
        """
        if question is None:
            wordings = prompts or (IMAGE_INSTRUCTIONS if kind == "image" else CAPTION_INSTRUCTIONS)
            question, answer = wordings[instruction_draw % len(wordings)], caption
        asked, answered = self.shortened(question), self.shortened(answer or "")
        unended = answered != (answer or "")
        cut = unended or asked != question

        def in_turn(number: int, text: str) -> list[tuple[int, int]]:
            return [(medium, min(place.at, len(text))) for medium, place in enumerate(media) if place.turn == number]

        if kind in ("text", "several"):
            head, tail = self.template(1, visual=False)
            first = self.asked(head, tail, asked, in_turn(0, asked))
        else:
            before, after = self.question(asked)
            first = [*before, mark(0), *after]
        ids = self.answer(answered) if answered else []
        if unended:
            ids.pop()
        later: list[tuple[list[int], list[int]]] = []
        left = 0 if unended else self.max_text_tokens
        for number, turn in enumerate(turns, 1):
            own = self.later(turn[0], in_turn(number, turn[0])), self.answer(turn[1])
            left -= sum(map(len, own))
            if left < 0:
                cut = True
                break
            later.append(own)
        prompt: list[int] = []
        decoder_ids: list[int] = []
        if self.caption_ids is not None:
            caption = caption or ""
            # The decoder's tokenizer has the limit of its published model.
            prompt, decoder_ids = self.whole_prompt(self.shortened(caption)), self.caption_ids(caption)
            cut = cut or len(prompt) > self.max_prompt_length
            prompt = prompt[: self.max_prompt_length]
        return RowText(first, ids, prompt, decoder_ids, bool(caption), bool(caption), cut, tuple(later))

    def counted(self, row: RowText, losses: Collection[str]) -> RowText:
        """Returns a sample's rows that count only in some losses, of ``under``, ``vis_lm`` and ``dec``."""
        if "under" not in losses:
            row = row._replace(answer=[], turns=())
        return row._replace(predicts=row.predicts and "vis_lm" in losses, decodes=row.decodes and "dec" in losses)

    def without_caption(self, row: RowText) -> RowText:
        """Returns a sample's rows with an empty caption in the generation row, which keeps its losses."""
        return (
            row if self.caption_ids is None else row._replace(prompt=self.prompt(""), decoder_ids=self.caption_ids(""))
        )

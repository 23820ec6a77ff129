"""Turns the text of a sample's two rows into token ids. It runs in the data workers and makes no tensors.

understanding row:  before | visual tokens | after | answer, end token         (eq. 6; loss on the last two)
generation row:     template with the caption | visual tokens                  (eqs. 8 and 10)
"""

from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

from vtok.config import ConfigError, MLLMConfig, ModelConfig
from vtok.mllm import published
from vtok.mllm.base import Placeholder
from vtok.mllm.llava_next import LLAVA_NEXT
from vtok.rows.literal import control_words, literal_ids
from vtok.rows.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE
from vtok.video_decoder import caption_tokenizer
from vtok.video_decoder.base import CaptionTokenizer
from vtok.weights import first_line
from vtok.weights.shipped import folder_or_id

QUESTION = "\ue000"  # stands for the question in a filled template

# LLaMA-3's end of a turn. Some of its tokenizers name another end token, which ends documents.
END_OF_TURN = "<|eot_id|>"


class RowText(NamedTuple):
    """Token ids of one sample.

    Attributes:
        before, after: The understanding prompt on either side of the visual tokens.
        answer: The answer with its end token. Empty if there is no answer.
        prompt: The generation row's template with the caption. Empty if there is no decoder.
        decoder_ids: The caption for the decoder's own text encoder. Empty if there is no decoder.
        captioned: Whether the sample has a caption. Without one the generation row has no loss.
        cut: Whether a text was longer than its limit, and was cut.
    """

    before: list[int]
    after: list[int]
    answer: list[int]
    prompt: list[int]
    decoder_ids: list[int]
    captioned: bool
    cut: bool = False


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
            ConfigError: A tokenizer cannot be loaded.
        """
        try:
            mllm, revision = folder_or_id(config.mllm.weights), config.mllm.revision
            tokenizer = AutoTokenizer.from_pretrained(mllm, revision=revision)
            # The model's template may lie with its processor, while the tokenizer has the bare language model's.
            processor, _ = ProcessorMixin.get_processor_dict(mllm, revision=revision)
            tokenizer.chat_template = processor.get("chat_template", tokenizer.chat_template)
            caption_ids = caption_tokenizer(config.decoder) if config.generates else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load a tokenizer: {first_line(error)}") from error
        kind = published(config.mllm)
        system = kind.system(tokenizer) if config.tokeniser.strategy == "training_free" else None
        longest = config.mllm.max_text_tokens
        return cls(tokenizer, caption_ids, config.decoder.max_prompt_tokens, kind.placeholder, system, longest)

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
        head, tail = self.chat()
        # Like LLaVA's processor: the template may write the first token itself or leave it to the tokenizer.
        written = head.startswith(self.tokenizer.bos_token or token)
        ids = literal_ids(self.tokenizer, self.control, head, question.strip(), tail, not written)
        visual = self.tokenizer.convert_tokens_to_ids(token)
        if visual not in ids:
            raise ConfigError(f"the tokenizer of mllm.weights has no token {token}: is it of mllm.kind?")
        place = ids.index(visual)
        return ids[:place], ids[place + 1 :]

    def chat(self) -> tuple[str, str]:
        """Fills the chat template with a video and a question. Returns the text on both sides of the question.

        The content of a message is a list of typed parts in some published templates (LLaVA's), one string in others
        (LLaMA's).

        Raises:
            ConfigError: Neither form shows both the video and the question.
        """
        part, token = self.placeholder
        typed: list[Any] = [
            [{"type": "text", "text": self.system}],
            [{"type": part}, {"type": "text", "text": QUESTION}],
        ]
        plain: list[Any] = [self.system, f"{token}\n{QUESTION}"]
        for contents in (typed, plain):
            messages = [{"role": role, "content": content} for role, content in zip(("system", "user"), contents)]
            told = messages if self.system else messages[1:]
            try:
                chat = self.tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
            except (TypeError, TemplateError):  # a template of strings that joins or strips them
                continue
            if isinstance(chat, str) and chat.count(token) == 1 and chat.count(QUESTION) == 1:
                head, tail = chat.split(QUESTION)
                return head, tail
        raise ConfigError(f"the chat template of mllm.weights shows {part} or question neither as parts nor as text")

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

    def sample(self, caption: str | None, question: str | None, answer: str | None, instruction_draw: int) -> RowText:
        """Tokenises both rows of a training sample.

        The understanding row asks the sample's question. Without one it asks for the caption. An answer that was cut
        has no end token, since it does not end there. The generation row keeps the caption's first
        ``decoder.max_prompt_tokens``.

        Args:
            caption, question, answer: The sample's text.
            instruction_draw: A random integer of the sample, which picks the wording that asks for the caption.
        """
        if question is None:
            question, answer = CAPTION_INSTRUCTIONS[instruction_draw % len(CAPTION_INSTRUCTIONS)], caption
        asked, answered = self.shortened(question), self.shortened(answer or "")
        unended = answered != (answer or "")
        cut = unended or asked != question
        before, after = self.question(asked)
        ids = self.answer(answered) if answered else []
        if unended:
            ids.pop()
        prompt: list[int] = []
        decoder_ids: list[int] = []
        if self.caption_ids is not None:
            caption = caption or ""
            # The decoder's tokenizer has the limit of its published model.
            prompt, decoder_ids = self.whole_prompt(self.shortened(caption)), self.caption_ids(caption)
            cut = cut or len(prompt) > self.max_prompt_length
            prompt = prompt[: self.max_prompt_length]
        return RowText(before, after, ids, prompt, decoder_ids, bool(caption), cut)

    def without_caption(self, row: RowText) -> RowText:
        """Returns a sample's rows with an empty caption in the generation row, which keeps its losses."""
        return (
            row if self.caption_ids is None else row._replace(prompt=self.prompt(""), decoder_ids=self.caption_ids(""))
        )

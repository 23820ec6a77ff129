"""Text to token ids: what a sample's two rows say. Runs in the data workers, knows no tensors.

understanding row:  before | visual tokens | after | answer, end token         (eq. 6; loss on the last two)
generation row:     template with the caption | visual tokens                  (eqs. 5 and 9)
"""

from typing import NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer, LlavaNextProcessor, PreTrainedTokenizerBase

from vtok.config import ConfigError, ModelConfig
from vtok.decoder import caption_tokenizer
from vtok.decoders.base import CaptionTokenizer
from vtok.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE
from vtok.weights import first_line

IMAGE_TOKEN = "<image>"


class RowText(NamedTuple):
    """Token ids of one sample.

    Attributes:
        before, after: the understanding prompt on either side of the visual tokens.
        answer: the answer with its end token; empty when there is none.
        prompt: the generation row's template filled with the caption.
        decoder_ids: the caption for the decoder's own text encoder.
        captioned: whether there is a caption at all; without one the generation row carries no loss.
    """

    before: list[int]
    after: list[int]
    answer: list[int]
    prompt: list[int]
    decoder_ids: list[int]
    captioned: bool


class TextEncoder:
    """Fills the templates and tokenises them.

    Args:
        tokenizer: the language model's, with a chat template and a token of its own for ``<image>``.
        caption_ids: a caption to the token ids of the decoder's own text encoder.
        max_prompt_tokens: caption and template tokens kept after the crop, as in diffusers' pipeline.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, caption_ids: CaptionTokenizer, max_prompt_tokens: int):
        self.tokenizer = tokenizer
        self.caption_ids = caption_ids
        # The decoder never sees the template's system part: rows before this one are cropped. Diffusers' constant (95)
        # is for LLaMA-3's tokenizer; counted, it is right for any.
        self.crop_start = len(tokenizer(DECODER_TEMPLATE.split("{}")[0]).input_ids)
        self.max_prompt_length = self.crop_start + max_prompt_tokens

    @classmethod
    def from_pretrained(cls, config: ModelConfig) -> "TextEncoder":
        """Tokenizers from ``mllm.weights`` and ``decoder.weights``.

        Raises:
            ConfigError: one of them cannot be loaded.
        """
        try:
            mllm, revision = config.mllm.weights, config.mllm.revision
            tokenizer = AutoTokenizer.from_pretrained(mllm, revision=revision)
            # LLaVA's template lies beside its processor; the tokenizer may still carry the bare language model's.
            processor, _ = LlavaNextProcessor.get_processor_dict(mllm, revision=revision)
            tokenizer.chat_template = processor.get("chat_template", tokenizer.chat_template)
            caption_ids = caption_tokenizer(config.decoder)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load a tokenizer: {first_line(error)}") from error
        return cls(tokenizer, caption_ids, config.decoder.max_prompt_tokens)

    def question(self, question: str) -> tuple[list[int], list[int]]:
        """Ids before and after the visual tokens, in the model's own chat template.

        Raises:
            ConfigError: the template leaves the image or the question out, or there is no token for the image.
        """
        chat = self.chat(question.replace(IMAGE_TOKEN, ""))
        # As LLaVA's processor does it: a template may write the first token itself or leave it to the tokenizer.
        written = chat.startswith(self.tokenizer.bos_token or IMAGE_TOKEN)
        ids = self.tokenizer(chat, add_special_tokens=not written).input_ids
        image = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if image not in ids:
            raise ConfigError(f"the tokenizer of mllm.weights has no token {IMAGE_TOKEN}: is it LLaVA's?")
        place = ids.index(image)
        return ids[:place], ids[place + 1 :]

    def chat(self, question: str) -> str:
        """The chat template around an image and a question about it.

        Published templates differ in what a message holds: typed parts (LLaVA's own), or one string (LLaMA's).
        """
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        for content in (parts, f"{IMAGE_TOKEN}\n{question}"):
            try:
                chat = self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
                )
            except (TypeError, TemplateError):  # a template of strings that joins or strips them
                continue
            if chat.count(IMAGE_TOKEN) == 1 and question.strip() in chat:
                return chat
        raise ConfigError("the chat template of mllm.weights shows an image or a question neither as parts nor as text")

    def answer(self, answer: str) -> list[int]:
        return self.tokenizer(answer, add_special_tokens=False).input_ids + [self.tokenizer.eos_token_id]

    def prompt(self, caption: str) -> list[int]:
        text = DECODER_TEMPLATE.format(caption)
        return self.tokenizer(text, truncation=True, max_length=self.max_prompt_length).input_ids

    def sample(self, caption: str | None, question: str | None, answer: str | None, instruction_draw: int) -> RowText:
        """Both rows of a training sample: its question if it has one, else an instruction that asks for the caption.

        Args:
            instruction_draw: the sample's own random integer; picks the instruction.
        """
        if question is None:
            question, answer = CAPTION_INSTRUCTIONS[instruction_draw % len(CAPTION_INSTRUCTIONS)], caption
        before, after = self.question(question)
        return RowText(
            before, after, self.answer(answer) if answer else [],
            self.prompt(caption or ""), self.caption_ids(caption or ""), bool(caption),
        )  # fmt: skip

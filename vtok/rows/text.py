"""Text to token ids: what a sample's two rows say. Runs in the data workers, knows no tensors.

understanding row:  before | visual tokens | after | answer, end token         (eq. 6; loss on the last two)
generation row:     template with the caption | visual tokens                  (eqs. 5 and 9)
"""

from typing import NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

from vtok.config import ConfigError, ModelConfig
from vtok.rows.literal import control_words, literal_ids
from vtok.rows.prompts import CAPTION_INSTRUCTIONS, DECODER_TEMPLATE
from vtok.video_decoder import caption_tokenizer
from vtok.video_decoder.base import CaptionTokenizer
from vtok.weights import first_line

QUESTION = "\ue000"  # stands for the question in a filled template
IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<|video_pad|>"


class Placeholder(NamedTuple):
    """What stands for the visual tokens: a chat template's typed part, and the token it becomes."""

    part: str
    token: str


PLACEHOLDERS = {"llava-next": Placeholder("image", IMAGE_TOKEN), "qwen2.5-vl": Placeholder("video", VIDEO_TOKEN)}


class RowText(NamedTuple):
    """Token ids of one sample.

    Attributes:
        before, after: the understanding prompt on either side of the visual tokens.
        answer: the answer with its end token; empty when there is none.
        prompt: the generation row's template filled with the caption; empty when there is no decoder.
        decoder_ids: the caption for the decoder's own text encoder; likewise.
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
        tokenizer: the language model's, with a chat template and a token of its own for visual tokens.
        caption_ids: a caption to the token ids of the decoder's own text encoder; ``None`` where there is no decoder.
        max_prompt_tokens: caption and template tokens kept after the crop, as in diffusers' pipeline.
        placeholder: what stands for the visual tokens in the chat template.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        caption_ids: CaptionTokenizer | None,
        max_prompt_tokens: int,
        placeholder: Placeholder = PLACEHOLDERS["llava-next"],
    ):
        self.tokenizer = tokenizer
        self.caption_ids = caption_ids
        self.placeholder = placeholder
        self.control = control_words(tokenizer, [placeholder.token])
        # The decoder never sees the template's system part: rows before this one are cropped. Diffusers' constant (95)
        # is for LLaMA-3's tokenizer; counted, it is right for any.
        self.crop_start = len(tokenizer(DECODER_TEMPLATE.split("{}")[0]).input_ids)
        self.max_prompt_length = self.crop_start + max_prompt_tokens

    @classmethod
    def from_pretrained(cls, config: ModelConfig) -> "TextEncoder":
        """Tokenizers from ``mllm.weights`` and, if there is a decoder, ``decoder.weights``.

        Raises:
            ConfigError: one of them cannot be loaded.
        """
        try:
            mllm, revision = config.mllm.weights, config.mllm.revision
            tokenizer = AutoTokenizer.from_pretrained(mllm, revision=revision)
            # A model's template may lie beside its processor; the tokenizer may still carry the bare language model's.
            processor, _ = ProcessorMixin.get_processor_dict(mllm, revision=revision)
            tokenizer.chat_template = processor.get("chat_template", tokenizer.chat_template)
            caption_ids = caption_tokenizer(config.decoder) if config.generates else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load a tokenizer: {first_line(error)}") from error
        return cls(tokenizer, caption_ids, config.decoder.max_prompt_tokens, PLACEHOLDERS[config.mllm.kind])

    def question(self, question: str) -> tuple[list[int], list[int]]:
        """Ids before and after the visual tokens, in the model's own chat template.

        Raises:
            ConfigError: the template leaves the video or the question out, or there is no token for the video.
        """
        token = self.placeholder.token
        head, tail = self.chat()
        # As LLaVA's processor does it: a template may write the first token itself or leave it to the tokenizer.
        written = head.startswith(self.tokenizer.bos_token or token)
        ids = literal_ids(self.tokenizer, self.control, head, question.strip(), tail, not written)
        visual = self.tokenizer.convert_tokens_to_ids(token)
        if visual not in ids:
            raise ConfigError(f"the tokenizer of mllm.weights has no token {token}: is it of mllm.kind?")
        place = ids.index(visual)
        return ids[:place], ids[place + 1 :]

    def chat(self) -> tuple[str, str]:
        """The chat template around an image or video and a question about it: what is before and after the question.

        Published templates differ in what a message holds: typed parts (LLaVA's own), or one string (LLaMA's).
        """
        part, token = self.placeholder
        for content in ([{"type": part}, {"type": "text", "text": QUESTION}], f"{token}\n{QUESTION}"):
            try:
                chat = self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
                )
            except (TypeError, TemplateError):  # a template of strings that joins or strips them
                continue
            if chat.count(token) == 1 and chat.count(QUESTION) == 1:
                head, tail = chat.split(QUESTION)
                return head, tail
        raise ConfigError(f"the chat template of mllm.weights shows {part} or question neither as parts nor as text")

    def answer(self, answer: str) -> list[int]:
        ids = literal_ids(self.tokenizer, self.control, "", answer, add_special_tokens=False)
        return ids + [self.tokenizer.eos_token_id]

    def prompt(self, caption: str) -> list[int]:
        head, tail = DECODER_TEMPLATE.split("{}")
        return literal_ids(self.tokenizer, self.control, head, caption, tail)[: self.max_prompt_length]

    def sample(self, caption: str | None, question: str | None, answer: str | None, instruction_draw: int) -> RowText:
        """Both rows of a training sample: its question if it has one, else an instruction that asks for the caption.

        Args:
            instruction_draw: the sample's own random integer; picks the instruction.
        """
        if question is None:
            question, answer = CAPTION_INSTRUCTIONS[instruction_draw % len(CAPTION_INSTRUCTIONS)], caption
        before, after = self.question(question)
        prompt, decoder_ids = [], []
        if self.caption_ids is not None:
            prompt, decoder_ids = self.prompt(caption or ""), self.caption_ids(caption or "")
        return RowText(before, after, self.answer(answer) if answer else [], prompt, decoder_ids, bool(caption))

"""The texts around a video: instructions that ask for a caption, and the template of the generation row."""

from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

# One is drawn per sample, so the model does not learn a single wording.
CAPTION_INSTRUCTIONS = (
    "Describe this video.",
    "What happens in this video?",
    "Write a caption for this video.",
    "Summarise the video in one sentence.",
    "Tell me what you see in the video.",
    "Give a short description of this clip.",
    "What is shown in this clip?",
    "Explain what is going on in the video.",
    "Describe the objects in the video and how they move.",
    "Provide a caption that covers the scene and the motion.",
    "How would you describe this video to someone who cannot see it?",
    "State the content of the video.",
)

# The same for an image.
IMAGE_INSTRUCTIONS = (
    "Describe this image.",
    "What is shown in this image?",
    "Write a caption for this image.",
    "Summarise the image in one sentence.",
    "Tell me what you see in the picture.",
    "Give a short description of this picture.",
    "Describe the objects in the image and where they are.",
    "How would you describe this image to someone who cannot see it?",
    "State the content of the image.",
)

# HunyuanVideo was trained with exactly this text in front of each caption.
DECODER_TEMPLATE = str(DEFAULT_PROMPT_TEMPLATE["template"])

"""The VTok model (Wang et al., 2026, arXiv 2602.04202): video as S + T tokens for one multimodal language model.

A training step, in the order of its parts:

feature_extractor/   F, frozen: frames -> features
tokeniser/           features -> tokens, by strategy (vtok: a key frame and residual motion tokens)
spatial_encoder      key frame -> S tokens
motion_encoder       residual -> one motion token          (change the motion encoder here)
feature_scale        mean and deviation of the frozen features
projection           phi_vis and P: tokens -> the language model's space
rows/                text and tokens -> one packed sequence
mllm/                the language model
visual_head/         p(V_j | V_<j, text), for L_visLM
video_decoder/       the frozen diffusion transformer, for L_dec;  flow_matching: its noise and its target
sequence             several ranks share a sample (sequence parallelism)
framework            all of it: one training step, from frames to losses

What a trained framework is used for:

understanding        answers about videos
generation           videos of prompts
pipeline             VTokPipeline, for notebooks

Where it comes from:

config               every setting of the model
weights/             where pretrained weights lie; reads slices of them
parts                the parts that can train;  lora, quantised: adapters over what is frozen
assembly/            builds a framework, saves it as a folder, writes tiny models
vidtok/              the VidTok family of video autoencoders
"""

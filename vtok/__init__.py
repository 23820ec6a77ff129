"""The VTok model (Wang et al., 2026, arXiv 2602.04202): video as S + T tokens for one multimodal language model.

config              every setting of the model
layout              which frames become which tokens
feature_extractor   F, frozen
key_frame           which frame is the key frame, where it is to be found
spatial_encoder     key frame -> S tokens
motion_encoder      residual -> one token          (change the motion encoder here)
tokeniser           frames -> tokens, by strategy; each strategy is a file in tokenisers/
feature_scale       mean and deviation of the frozen features
projection          phi_vis and P: tokens into the language model's space
text, rows, batch   what a sample says, where its tokens stand, what a micro-batch holds
mllm                the language model, by kind; each kind is a file in mllms/
mrope               positions of Qwen2.5-VL's tokens
visual_head         p(V_j | V_<j, text); its members in visual_heads/
flow_matching, decoder   the frozen video decoder and L_dec; its members in decoders/
patch_autoencoder   a linear autoencoder in the place of HunyuanVideo's, for studies in small
framework           all of it, and the losses of a training step
understanding, generation   understand() and generate(), the framework's other two sides
build, architectures, tiny   where the weights come from
pretrained, pipeline         folders to keep and hand on; VTokPipeline for notebooks
qwen_video          Qwen2.5-VL's vision tower, and videos as it takes them
anyres              an image with all the tokens LLaVA-Next itself uses, for comparison
"""

"""The autoencoders that a video decoder may have."""

from diffusers.models import AutoencoderKLHunyuanVideo, AutoencoderKLWan

from vtok.video_decoder.patch_autoencoder import PatchAutoencoder
from vtok.vidtok.latent_space import VidTokAutoencoder

Autoencoder = AutoencoderKLHunyuanVideo | AutoencoderKLWan | PatchAutoencoder | VidTokAutoencoder

"""The training losses of a VidTok (Tang et al., 2024, arXiv 2412.13061).

objective       the autoencoder's loss: reconstruction under a learned variance, regulariser, adversarial loss
perceptual      LPIPS: the distance of two pictures in the features of a VGG
discriminator   PatchGAN: whether each patch of a video looks real
adversarial     hinge losses, LeCAM, and the weight of the adversarial loss
"""

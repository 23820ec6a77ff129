"""What a VidTok is trained on (Tang et al., 2024, arXiv 2412.13061, section 3.4).

objective       reconstruction, weighed by a learned variance; the regulariser; the discriminator's opinion
perceptual      LPIPS: the distance between what a VGG sees
discriminator   PatchGAN: are these patches real?
adversarial     hinge losses, LeCAM, and how much the discriminator's opinion weighs
"""

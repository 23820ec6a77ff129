"""Judging models.

tv_align         does a generated video show what its prompt says?
questions        multiple-choice questions about given videos
judges           who answers questions about a video
accuracy         shares with intervals;  stored_answers   answers that are kept and gone on with
vidtok_scores    PSNR, SSIM, LPIPS and FVD of a VidTok
"""

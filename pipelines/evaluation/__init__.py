"""Judging models.

tv_align         does a generated video show what its prompt says?
understanding    multiple-choice questions about given videos
lmms_eval_model  VTok as a model of lmms-eval, which asks such questions too
vbench           VBench's dimensions of generated videos
judges           who answers questions about a video
options          lettered options, and the one that a reply names
accuracy         shares with intervals;  stored_answers   answers that are kept and gone on with
paired           two evaluations of the same items, item by item
comparison       tables and pictures of several
everything       the commands of ``evaluate.py all``
page             an evaluation as one HTML page
tables           answers scored by category
results          the report, of one form for all protocols
vidtok_scores    PSNR, SSIM, LPIPS and FVD of a VidTok
"""

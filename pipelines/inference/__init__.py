"""What the commands that use a trained model share.

shares     which inputs are this rank's
pictures   a video's tokens as a picture
demo       the demo's clips, caption and video
"""

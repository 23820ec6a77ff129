"""What the commands that use a trained model share.

load         the model of a run
understand   answers about video files
generate     videos of prompts, written to files
shares       which inputs are this rank's
pictures     a video's tokens as a picture
demo         what the demo shows at its end
"""

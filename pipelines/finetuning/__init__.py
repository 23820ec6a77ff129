"""What ``vtok-finetune`` does: its stages, and the picture of before and after."""

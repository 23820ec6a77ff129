"""The commands of `vtok-shards`: their command lines, and what each prints. What they run is imported when they run."""

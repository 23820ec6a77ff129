"""A look into datasets that are there.

index.py    tars that others built → sidecars and manifest
verify.py   is a dataset what it says it is?
stats.py    what its clips are like
show.py     a look at some of them, as the HTML of page.py
command.py  their commands of `vtok-shards`
"""

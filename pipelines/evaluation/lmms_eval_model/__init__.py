"""VTok as the model ``vtok`` of lmms-eval, which asks public suites' questions in their own words.

manifest.py      what lmms-eval's entry point ``lmms_eval.models`` finds: the name, and where the model's class is
model.py         lmms-eval's interface to a model; the only file here that imports lmms-eval
asker.py         asks about one video after another
environment.sh   makes an environment for it: lmms-eval wants other versions than we do
"""

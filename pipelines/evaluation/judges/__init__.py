"""The judges of generated videos.

pixels     the shapes world, from its pixels
qwen       any video, by Qwen2.5-VL in this process
openai     any video, by a model behind an OpenAI-compatible server;  endpoint   that server, with retries and a cache
"""

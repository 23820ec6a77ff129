"""Asks an OpenAI-compatible server (``/chat/completions``), with retries, a cache of replies, and cost counters."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from data_tools.shards import atomic_write
from vtok.config import ConfigError

KEY = "OPENAI_API_KEY"  # environment variable; local servers need none
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # status codes after which another attempt may succeed
ANSWER = "choices"


class Endpoint:
    """A server that answers chats.

    Args:
        url: Its address up to ``/v1``.
        cache: Folder of replies. What is there is not asked again.
        timeout: Seconds to wait for an answer.
        attempts: How often a question is asked at most.
        sleep: Waits so many seconds between attempts.

    Attributes:
        counts: ``requests``, ``from_cache``, ``retries``, ``tokens_read``, ``tokens_written`` of this process.
    """

    def __init__(self, url: str, cache: Path, timeout: float = 120.0, attempts: int = 5, sleep: Callable = time.sleep):
        self.url = f"{url.rstrip('/')}/chat/completions"
        self.cache = cache
        self.timeout = timeout
        self.attempts = attempts
        self.sleep = sleep
        self.counts: Counter[str] = Counter()

    def reply(self, chat: dict[str, Any]) -> str:
        """Returns the text of the server's reply; empty if it refuses.

        Args:
            chat: The request's body: ``model``, ``messages`` and so on.

        Raises:
            ConfigError: The server rejects the request, or does not answer it in all attempts.
        """
        body = json.dumps(chat, sort_keys=True).encode()
        kept = self.cache / f"{hashlib.sha256(self.url.encode() + body).hexdigest()}.json"
        if kept.exists():
            self.counts["from_cache"] += 1
            return json.loads(kept.read_bytes())["reply"]
        answer = self.ask(body)
        usage = answer.get("usage") or {}
        read, written = (int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        self.counts["tokens_read"] += read
        self.counts["tokens_written"] += written
        text = answer[ANSWER][0]["message"].get("content") or ""  # a refusal has none
        self.cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as file:
            file.write(json.dumps({"reply": text, "tokens_read": read, "tokens_written": written}).encode())
        return text

    def ask(self, body: bytes) -> dict[str, Any]:
        """Sends a request until it is answered; returns the answer as JSON. Errors as in :meth:`reply`."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                self.counts["retries"] += 1
                self.sleep(2.0**attempt)
            self.counts["requests"] += 1
            try:
                with urlopen(Request(self.url, body, headers), timeout=self.timeout) as answer:
                    return checked(answer.read())
            except HTTPError as error:
                problem = f"it answers {error.code}: {error.read(300).decode(errors='replace')}"
                if error.code not in PASSING:
                    raise ConfigError(f"the judge at {self.url} rejects the question: {problem}") from error
            except (OSError, HTTPException, ValueError) as error:  # no connection, a timeout, or no chat's answer
                problem = str(error) or type(error).__name__
        raise ConfigError(
            f"the judge at {self.url} did not answer in {self.attempts} attempts: {problem}: "
            "start it, or start this command again later; what was answered is kept"
        )

    def told(self) -> str:
        """Returns the counters in words."""
        count = self.counts
        return (
            f"judge: {count['requests']} requests, {count['retries']} of them again; {count['from_cache']} from the "
            f"cache; {count['tokens_read']:,} tokens read, {count['tokens_written']:,} written"
        )


def checked(answer: bytes) -> dict[str, Any]:
    """Returns a chat's answer.

    Raises:
        ValueError: It is none.
    """
    read = json.loads(answer)
    try:
        found = read[ANSWER][0]["message"].get("content")
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"it answers something else than a chat: {answer[:100]!r}") from error
    if found is not None and not isinstance(found, str):
        raise ValueError(f"its reply is no text: {found!r:.100}")
    return read

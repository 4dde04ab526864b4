"""Language models: whatever can continue a conversation, how it is asked, and what it cost."""

from prompts.llm.cached import CachedModel
from prompts.llm.fake import FakeModel
from prompts.llm.openai_model import OpenAIModel
from prompts.llm.protocol import CountingModel, Heard, LanguageModel, Message, Reply, Usage
from prompts.llm.structured_reply import ask

__all__ = [
    "CachedModel",
    "CountingModel",
    "FakeModel",
    "Heard",
    "LanguageModel",
    "Message",
    "OpenAIModel",
    "Reply",
    "Usage",
    "ask",
]

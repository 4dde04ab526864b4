"""Language model clients: the interface, an OpenAI-compatible client, a cache, a fake, structured replies."""

from prompts.llm.cached import CachedModel
from prompts.llm.fake import FakeModel
from prompts.llm.openai_model import OpenAIModel
from prompts.llm.protocol import CountingModel, LanguageModel, Message, Reply, TokenProgress, Usage
from prompts.llm.structured_reply import generate_structured

__all__ = [
    "CachedModel",
    "CountingModel",
    "FakeModel",
    "LanguageModel",
    "Message",
    "OpenAIModel",
    "Reply",
    "TokenProgress",
    "Usage",
    "generate_structured",
]

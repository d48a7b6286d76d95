"""The two questions put to a model: a plain one, and one that points at the highlighted region.

Both can be replaced (``wrap(..., plain_prompt=, highlight_prompt=)``); ``{question}`` stands for the user's question.
"""

PLAIN_PROMPT = "{question}\nAnswer briefly, from the image alone. If the image holds no evidence, say so."

HIGHLIGHT_PROMPT = (
    "{question}\nAnswer briefly, from the image alone, and look closely at the highlighted region. "
    "If the image holds no evidence, say so."
)

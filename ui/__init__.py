"""The page: Gradio around `llm`. Nothing here does arithmetic on tensors."""

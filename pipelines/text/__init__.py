"""Prompts as a language model reads them: its hidden states, by layer and template, and prompts written out by it."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.pipelines.text'; run 'pip install -e .' in the clone first")

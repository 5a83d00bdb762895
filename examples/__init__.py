"""Examples that run, and the small world the embedded foundation was trained on."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.examples'; run 'pip install -e .' in the clone first")

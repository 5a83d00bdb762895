"""What diffusers loads and runs: verification of grown models, and generation."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.pipelines'; run 'pip install -e .' in the clone first")

"""What makes a grown model good. Objectives stand in `objectives/`, one small file each."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.train'; run 'pip install -e .' in the clone first")

"""The commands of `grow`, one file each: parse, call one library function, render. No logic."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.commands'; run 'pip install -e .' in the clone first")
